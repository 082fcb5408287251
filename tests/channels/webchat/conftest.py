"""A real browser on the page of a real daemon."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests import requirement

TIMEOUT = 15.0  # seconds
STARTING = 60.0  # seconds
REPLY = ".message[data-role=assistant]"
MINE = ".message[data-role=user]"
ARTIFACTS = Path(__file__).parents[3] / "artifacts" / "screenshots"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What Chromium itself writes when a WebSocket or a fetch finds nobody there; no page can prevent it.
UNAVOIDABLE = ("WebSocket connection to ", "net::ERR_")


class Visit:
    """One browser profile looking at one gateway; `complaints` is all that should not have happened."""

    def __init__(self, browser: Browser, port: int) -> None:
        self.browser = browser
        self.origin = f"http://127.0.0.1:{port}"
        self.complaints: list[str] = []
        self.context: BrowserContext | None = None
        self._contexts: list[BrowserContext] = []

    async def page(self, path: str = "/", **context: Any) -> Page:
        """A tab; all tabs of a visit share the profile. `context`: viewport, colour scheme …"""
        if self.context is None or context:
            self.context = await self.browser.new_context(
                **{"viewport": {"width": 1280, "height": 800}, **context}
            )
            self._contexts.append(self.context)
        page = await self.context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"script error: {error} {error.stack}"))
        page.on("request", self._request)
        page.on("dialog", self._dialog)
        await page.goto(self.origin + path)
        await until(
            page, "document.getElementById('model').textContent || !document.getElementById('signin').hidden"
        )
        return page

    async def close(self) -> None:
        """Leave nothing behind for the next test's browser."""
        for context in self._contexts:
            await context.close()

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in UNAVOIDABLE):
            self.complaints.append(f"console {message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", self.origin.replace("http", "ws"))):
            self.complaints.append(f"request to {request.url}")

    async def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        await dialog.dismiss()


Visits = Callable[[int], Awaitable[Visit]]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one Chromium for all tests of a worker: its start costs more than most of them."""
    program = requirement.program("chromium", "chromium-browser", "google-chrome")
    profile = tmp_path_factory.mktemp("chromium")
    told = profile / "DevToolsActivePort"
    own = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen([program, *QUIET, *own], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + STARTING
            while not (told.exists() and told.read_text().count("\n")):
                assert process.poll() is None, f"Chromium ended: {process.returncode}"
                assert time.monotonic() < deadline, "Chromium did not start"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{told.read_text().splitlines()[0]}"
        finally:
            process.terminate()


@pytest.fixture
async def visits(chromium: str) -> AsyncIterator[Visits]:
    """Opens visits; at the end of the test none of them may have a complaint."""
    made: list[Visit] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium)

        async def visit(port: int) -> Visit:
            made.append(Visit(browser, port))
            return made[-1]

        yield visit
        for one in made:
            await one.close()
        await browser.close()
    assert [complaint for one in made for complaint in one.complaints] == []


async def until(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression is true; Playwright's own way needs eval, which our CSP forbids."""
    async with asyncio.timeout(TIMEOUT):
        while not await page.evaluate(f"Boolean({expression})"):  # noqa: ASYNC110 - a page has no event to await
            await asyncio.sleep(0.03)


async def say(page: Page, text: str) -> None:
    """Type a message and send it."""
    await page.fill("#composer", text)
    await page.press("#composer", "Enter")


async def answered(page: Page, count: int) -> None:
    """Wait until so many replies are there for good."""
    await until(page, f"document.querySelectorAll('#events {REPLY}[data-cursor]').length >= {count}")


async def text_of(page: Page, selector: str) -> list[str]:
    """What messages say, their white space made one."""
    return [" ".join(text.split()) for text in await page.locator(f"{selector} .body").all_inner_texts()]


async def picture(page: Page, name: str) -> None:
    """Keep a screenshot where CI collects them."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=ARTIFACTS / f"{name}.png")
