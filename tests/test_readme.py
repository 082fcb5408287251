"""The README's commands, run as they stand there."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import requirement
from tests.fakes.telegram_server import TelegramServer

ROOT = Path(__file__).parents[1]
TOKEN = "123456:AAtest-token_of-the-right-form-000"


def blocks(heading: str) -> list[str]:
    """The shell blocks of a section."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@asynccontextmanager
async def running(script: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A block that goes on until Ctrl-C, in a terminal of its own."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-ec", script, cwd=ROOT, env=env, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        async with asyncio.timeout(30):
            await process.communicate()


async def test_the_telegram_section_is_enough(folder: Path) -> None:
    requirement.program("make")
    start, approve = blocks("A Telegram bot")
    async with TelegramServer(TOKEN) as telegram:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LUNAR_DATA_DIR": str(folder / "data"),
            "LUNAR_HTTP__PORT": "0",
            "LUNAR_CHANNELS__TELEGRAM__API_URL": telegram.api_url,  # the one thing that is changed
        }
        hao = telegram.user(7, "Hao")
        async with running(start.replace("123456:ABC…", TOKEN), env):
            hao.says("Hello?")
            await telegram.until(lambda: bool(hao.chat.texts()), timeout=60)
            code = re.search(r"/approve (\S+)", hao.chat.texts()[-1])
            assert code
            script = approve.replace("CODE", code[1])
            let_in = await asyncio.create_subprocess_exec("bash", "-ec", script, cwd=ROOT, env=env)
            assert await let_in.wait() == 0
            hao.says("My name is Hao. What's my name?")
            await telegram.until(lambda: "Hao" in hao.chat.texts()[-1], timeout=30)
