"""The README's blocks, run as they stand there: what is changed is keys, addresses, and where the data is."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import requirement
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer

ROOT = Path(__file__).parents[1]
TOKEN = "123456:AAtest-token_of-the-right-form-000"
KEY = "sk-test-0123456789abcdef"
PORT = re.compile(rb'"http":"http://127\.0\.0\.1:(\d+)/?"')


def sections() -> dict[str, list[str]]:
    """All blocks of code, by the heading that they stand under."""
    found = {}
    for part in (ROOT / "README.md").read_text(encoding="utf-8").split("\n## "):
        heading, _, text = part.partition("\n")
        if blocks := re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found[heading] = blocks
    return found


class Shell:
    """Two terminals in the checkout: one in which the gateway runs, and another."""

    def __init__(self, folder: Path, **env: str) -> None:
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LUNAR_DATA_DIR": str(folder / "data"),
            "LUNAR_HTTP__PORT": "0",
            **env,
        }
        self.port = 0  # set when the gateway is ready

    @asynccontextmanager
    async def running(self, script: str) -> AsyncIterator[None]:
        """A block that goes on until Ctrl-C; entered when the gateway is ready."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-ec", script, cwd=ROOT, env=self._env,
            stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert process.stderr is not None
        ready, log = asyncio.Event(), []

        async def read(stderr: asyncio.StreamReader) -> None:
            async for line in stderr:
                log.append(line)
                if b'"event":"ready"' in line and (found := PORT.search(line)):
                    self.port = int(found[1])
                    ready.set()

        reading = asyncio.create_task(read(process.stderr))
        try:
            try:
                await asyncio.wait_for(ready.wait(), 60)
            except TimeoutError:
                raise AssertionError(b"".join(log).decode()) from None
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            async with asyncio.timeout(30):
                await process.wait()
                await reading

    async def run(self, script: str, typed: str = "") -> str:
        """A block that ends; returns what it printed."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-ec", script, cwd=ROOT, env=self._env,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(typed.encode()), 60)
        assert process.returncode == 0, script
        return out.decode()


async def test_the_two_commands_are_enough(folder: Path) -> None:
    requirement.program("make")
    start, chat, *_ = sections()["Start"]
    shell = Shell(folder)
    async with shell.running(start):
        assert "Hao" in await shell.run(chat, "My name is Hao. What is my name?")


async def test_a_model_is_connected_by_its_key(folder: Path, openai: OpenAIServer) -> None:
    requirement.program("make")
    _, chat, with_key, _ = sections()["Start"]
    shell = Shell(folder, OPENAI_BASE_URL=openai.base_url)  # where OpenAI is here
    async with shell.running(with_key.replace("…", KEY)):
        assert await shell.run(chat, "Hello") == "echo: Hello\n"
    assert openai.requests[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_a_model_is_connected_by_its_address_and_used(folder: Path, openai: OpenAIServer) -> None:
    requirement.program("make")
    *_, by_address = sections()["Start"]
    (use,) = sections()["Use"]
    shell = Shell(folder)
    async with shell.running(by_address.replace("…", openai.base_url)):
        said = await shell.run(use.replace("8420", str(shell.port)))
    assert re.fullmatch(
        r"echo: Summarise this in one line: .*load average.*\necho: Hello from elsewhere\n", said
    )
    names = [path.name for path in (folder / "data" / "sessions").iterdir()]
    assert "agent-main-cli-ops.jsonl" in names


async def test_the_telegram_section_is_enough(folder: Path) -> None:
    requirement.program("make")
    start, approve = sections()["A Telegram bot"]
    async with TelegramServer(TOKEN) as telegram:
        shell = Shell(folder, LUNAR_CHANNELS__TELEGRAM__API_URL=telegram.api_url)
        hao = telegram.user(7, "Hao")
        async with shell.running(start.replace("123456:ABC…", TOKEN)):
            hao.says("Hello?")
            await telegram.until(lambda: bool(hao.chat.texts()), timeout=60)
            code = re.search(r"/approve (\S+)", hao.chat.texts()[-1])
            assert code
            await shell.run(approve.replace("CODE", code[1]))
            hao.says("My name is Hao. What's my name?")
            await telegram.until(lambda: "Hao" in hao.chat.texts()[-1], timeout=30)


def test_no_block_is_left_out() -> None:
    assert {heading: len(blocks) for heading, blocks in sections().items()} == {
        "Start": 4,
        "A Telegram bot": 2,
        "Use": 1,
    }


def test_the_pictures_are_small_and_here() -> None:
    named = re.findall(r'(?:src|srcset)="([^"]+)"|!\[[^]]*\]\(([^)]+)\)', (ROOT / "README.md").read_text())
    pictures = [ROOT / (html or markdown) for html, markdown in named]
    assert len(pictures) == 3
    assert sum(path.stat().st_size for path in pictures) < 300_000
