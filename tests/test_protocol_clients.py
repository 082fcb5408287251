"""The two clients of docs/protocol.md, run as they stand there, over a restart of the gateway."""

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from playwright.async_api import async_playwright

from tests import requirement
from tests.channels.webchat.conftest import QUIET
from tests.conftest import Daemons
from tests.fakes.openai_server import Hang, OpenAIServer, Say

PAGE = Path(__file__).parents[1] / "docs" / "protocol.md"


def example(language: str) -> str:
    (found,) = re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return found


def test_they_are_short() -> None:
    for language in ("python", "js"):
        assert len([line for line in example(language).splitlines() if line.strip()]) <= 30


async def test_the_client_in_python(daemons: Daemons, openai: OpenAIServer) -> None:
    daemon = daemons(server=openai)
    await daemon.start()
    openai.script(Hang(), Say("Hello to you!"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", example("python"), cwd=daemon.folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await openai.until(lambda server: len(server.requests) == 1, timeout=30)
    await daemon.kill()
    await daemon.start()
    out, shown = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (0, b"Hello to you!\n")
    assert b"Hello to you!".endswith(shown)
    assert [event["role"] for event in daemon.events("agent:main:cli:local")].count("user") == 1


@asynccontextmanager
async def site(html: str) -> AsyncIterator[str]:
    """A web server with one page; yields its origin. Chromium lets only pages of loopback open loopback."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_the_client_in_javascript(daemons: Daemons, openai: OpenAIServer) -> None:
    chromium = requirement.program("chromium", "chromium-browser", "google-chrome")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    openai.script(Hang(), Say("Hello to you!"))
    said: asyncio.Queue[str] = asyncio.Queue()
    html = f"<script>{example('js').replace('8420', port)}</script>"
    async with async_playwright() as playwright, site(html) as origin:
        daemon = daemons(server=openai, LUNAR_HTTP__PORT=port, LUNAR_HTTP__ALLOWED_ORIGINS=f"[{origin}]")
        browser = await playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = await browser.new_page()
        page.on("console", lambda message: message.type == "log" and said.put_nowait(message.text))
        await page.goto(origin)  # nobody is there yet: what it says is sent as soon as there is
        await daemon.start()
        await openai.until(lambda server: len(server.requests) == 1, timeout=30)
        await daemon.kill()
        await daemon.start()
        assert await asyncio.wait_for(said.get(), 30) == "Hello to you!"
        await page.evaluate("say('And again')")
        assert await asyncio.wait_for(said.get(), 30) == "echo: And again"
        assert said.empty()
        await browser.close()
    (transcript,) = (daemon.data_dir / "sessions").iterdir()
    assert transcript.read_text().count('"role":"user"') == 2
