"""docs/quickstart.md, followed word by word on a machine with the real systemd.

There is no network in the machine but its loopback, so that the addresses of this repository, of Telegram
and of OpenAI are others, and all that would be downloaded is there already.
"""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import pytest
from aiohttp import web

from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.systemd.machine import CHECKOUT, Machine

pytestmark = pytest.mark.xdist_group("systemd")
PAGE = CHECKOUT / "docs" / "quickstart.md"
TOKEN = "123456789:AAtest-token_of-the-right-form-0000000"
KEY = "sk-test-0123456789abcdefghij"
ROOM = "/run/quickstart"
ORIGIN = f"{ROOM}/origin"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# An administrator's shell. For pip: there is no registry, and what builds the package is there.
SHELL = [
    "env", "--ignore-environment", "--chdir=/", f"PATH={PATH}", f"HOME={ROOM}/administrator",
    "PIP_NO_INDEX=1", "PIP_NO_BUILD_ISOLATION=0", "PIP_DISABLE_PIP_VERSION_CHECK=1",
    "setsid", "bash", "-ec",
]  # fmt: skip


class Block(NamedTuple):
    """A block of commands, and the heading that it stands under."""

    heading: str
    script: str


def blocks() -> list[Block]:
    found = []
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        found += [
            Block(heading, script)
            for script in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        ]
    return found


class Reader:
    """Somebody who does what the page says, in its order, in one shell."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._left = blocks()

    async def follow(self, heading: str, *, typed: str | None = None, **instead: str) -> str:
        """Run the next block, which must be under this heading; returns what it printed."""
        script = self._next(heading, instead)
        return await self.run(script, typed=typed)

    async def run(self, script: str, *, typed: str | None = None) -> str:
        """Run something that is not on the page, while the test's servers go on."""
        done = await asyncio.to_thread(
            self._machine.run, *SHELL, f"cd $(cat {ROOM}/where); {script}", input=typed
        )
        return done.stdout + done.stderr

    async def follow_until(self, heading: str, words: str) -> None:
        """Run the next block, which never ends by itself, until it has printed this."""
        script = f"exec >{ROOM}/output 2>&1; echo $$ >{ROOM}/pid; {self._next(heading, {})}"
        running = asyncio.create_task(asyncio.to_thread(self._machine.run, *SHELL, script, check=False))
        try:
            async with asyncio.timeout(30):
                while words not in self._read("output"):
                    assert not running.done(), self._read("output")
                    await asyncio.sleep(0.05)
        finally:
            self._machine.run("kill", "--", f"-{self._read('pid').strip()}")  # with all that it began
            await running

    def finished(self) -> bool:
        return not self._left

    def _next(self, heading: str, instead: dict[str, str]) -> str:
        block = self._left.pop(0)
        assert block.heading == heading, f"{heading} does not come next, but {block}"
        script = block.script
        for word, meant in instead.items():
            assert len(re.findall(rf"\b{word}\b", script)) == 1
            script = re.sub(rf"\b{word}\b", meant, script)
        return f"{script}pwd >{ROOM}/where"

    def _read(self, name: str) -> str:
        file = self._machine.path(f"{ROOM}/{name}")
        return file.read_text(encoding="utf-8") if file.exists() else ""


class Inside(TelegramServer):
    """A Bot API server in the machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(TOKEN)
        self._machine = machine

    async def start_listening(self) -> None:
        await web.SockSite(self._runner, self._machine.listener()).start()
        self.port = self._runner.addresses[0][1]
        self.api_url = f"http://{self.host}:{self.port}"


@contextmanager
def fresh(machine: Machine) -> Iterator[None]:
    """A machine that knows nothing of Lunar but what could only be downloaded; what is done is undone."""
    machine.run("sh", "-c", f"""
        cd /
        test ! -e /opt/lunar/bin/lunar || /opt/lunar/bin/lunar service uninstall
        rm -rf /etc/lunar /etc/credstore/* /var/lib/private/lunar {ROOM}
        mkdir -p {ROOM}/administrator {ROOM}/lists/partial {ROOM}/upper {ROOM}/work
        echo {ROOM}/administrator >{ROOM}/where
        mount -t overlay overlay -o lowerdir=/opt/lunar,upperdir={ROOM}/upper,workdir={ROOM}/work /opt/lunar
        /opt/lunar/bin/python -m pip uninstall -q -y --root-user-action=ignore lunar-gateway
    """)  # fmt: skip
    machine.path("/etc/apt/apt.conf.d/99offline").write_text(
        'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{ROOM}/lists";\n'
    )  # what is installed is the newest that it knows of
    try:
        yield
    finally:
        machine.run("sh", "-c", f"""
            systemctl stop lunar.socket lunar.service
            rm -rf /etc/lunar /etc/credstore/* /var/lib/private/lunar/* /run/systemd/system/lunar.service.d
            rm -rf /usr/local/bin/lunar /usr/local/src/lunar /var/backups/lunar.tar.gz
            umount -l /opt/lunar
            rm -rf {ROOM} /etc/apt/apt.conf.d/99offline
            systemctl daemon-reload
        """)  # fmt: skip


def commit(machine: Machine, message: str) -> None:
    git = ["git", "-C", ORIGIN, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    machine.run(*git, "init", "-q")
    machine.run(*git, "add", "-A")
    machine.run(*git, "commit", "-q", "-m", message)


def publish(machine: Machine) -> None:
    """Make a repository of this checkout in the machine."""
    origin = machine.path(ORIGIN)
    for name in ("gateway", "channels", "session", "systemd"):
        shutil.copytree(CHECKOUT / name, origin / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config.yaml", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, origin / name)
    commit(machine, "as it is")


def publish_a_new_version(machine: Machine) -> None:
    file = machine.path(f"{ORIGIN}/gateway/__init__.py")
    file.write_text(re.sub('__version__ = ".*"', '__version__ = "99.0"', file.read_text()))
    commit(machine, "a new version")


def redirect(machine: Machine, telegram: TelegramServer, model: OpenAIServer) -> None:
    """Where Telegram and OpenAI are in this machine; a drop-in, as an administrator could write it."""
    folder = machine.path("/run/systemd/system/lunar.service.d")
    folder.mkdir(parents=True, exist_ok=True)
    environment = f"LUNAR_CHANNELS__TELEGRAM__API_URL={telegram.api_url} OPENAI_BASE_URL={model.base_url}"
    (folder / "addresses.conf").write_text(f"[Service]\nEnvironment={environment}\n")


@asynccontextmanager
async def outside_world(machine: Machine) -> AsyncIterator[tuple[TelegramServer, OpenAIServer]]:
    async with Inside(machine) as telegram, OpenAIServer(listener=machine.listener()) as model:
        redirect(machine, telegram, model)
        yield telegram, model


async def test_from_nothing_to_a_bot_and_back(machine: Machine) -> None:
    with fresh(machine):
        publish(machine)
        async with outside_world(machine) as (telegram, model):
            reader, ann = Reader(machine), telegram.user(7, "Ann")

            async def answered(text: str) -> None:
                ann.says(text)
                await telegram.until(lambda: f"echo: {text}" in ann.chat.texts(), timeout=30)

            await reader.follow("1. Install")
            await reader.follow("1. Install", ADDRESS=ORIGIN)
            await reader.follow("2. Two secrets", typed=f"{TOKEN}\n")
            await reader.follow("2. Two secrets", typed=f"{KEY}\n")
            assert (
                machine.run("stat", "--format=%a %U", "/etc/credstore/lunar.openai_api_key").stdout
                == "600 root\n"
            )
            assert "enable --now lunar.service" in await reader.follow("3. Start")

            ann.says("Hello?")
            await telegram.until(ann.chat.texts, timeout=30)
            code = re.search(r"/approve (\S+)", ann.chat.texts()[-1])
            assert code
            await reader.follow("4. Let yourself in", CODE=code[1])
            await answered("Hello there")
            assert model.requests[-1].headers["authorization"] == f"Bearer {KEY}"

            await reader.follow_until("Watch it", '"event":"ready"')
            assert "Hello there" in await reader.follow("Watch it")

            configuration = machine.path("/etc/lunar/config.yaml")
            configuration.write_text(configuration.read_text().replace("drain: 20s", "drain: 7s"))
            assert "drain" in await reader.follow("Change something")

            publish_a_new_version(machine)
            await reader.follow("Update")
            assert "99.0" in await reader.run("lunar --version")
            await answered("Are you new?")

            await reader.follow("Back up, and bring back")
            await answered("This is not in the backup")
            restored = await reader.follow("Back up, and bring back")
            assert "before-restore-" in restored
            said = await reader.run("lunar sessions search --json echo")
            texts = [json.loads(line)["line"] for line in said.splitlines()]
            assert texts == ["echo: Hello there", "echo: Are you new?"]
            await answered("Do you still know me?")

            await reader.follow("Take it away")
            assert machine.show("lunar.service", "LoadState", "ActiveState") == ["not-found", "inactive"]
            assert machine.path("/var/lib/private/lunar/sessions").exists()
            assert reader.finished()
