"""The page in a real Chromium: what a tool asks of the person, and messages that are steered."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from channels.connection import House
from channels.webchat.guard import Guard
from channels.webchat.renderer import HtmlRenderer
from channels.webchat.server import Access, Webchat
from session.events import Assistant
from tests.channels.webchat.conftest import picture, say, until
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Tools

CARD = "#live .approval"
REPLY = "#events .message[data-role=assistant]"


@asynccontextmanager
async def served(folder: Path, runner: ScriptedRunner, **gateway: Any) -> AsyncIterator[tuple[Gateway, int]]:
    """A gateway with the page on a port of loopback."""
    async with Gateway(folder, runner, **gateway) as made:
        house = House(made.router, made.controls, HtmlRenderer())
        app = web.Application()
        webchat = Webchat(house, Access(Guard("127.0.0.1")))
        webchat.attach(app)
        serving = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await serving.setup()
        await web.TCPSite(serving, "127.0.0.1", 0).start()
        try:
            yield made, serving.addresses[0][1]
        finally:
            await serving.cleanup()


EVIL = "/srv/\u202egpj.exe \x1b[2J<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("allow", [True, False])
async def test_a_card_asks_and_a_button_decides(
    folder: Path, visits: Callable[..., Any], allow: bool
) -> None:
    tools = Tools("c1", EVIL)
    async with served(folder, ScriptedRunner(tools)) as (_, port):
        page = await (await visits(port)).page()
        await say(page, "Delete the old files")
        await until(page, f"document.querySelectorAll('{CARD}').length == 2")
        assert await page.inner_text(f"{CARD} p >> nth=0") == "May delete run with this?"
        shown = await page.inner_text(f"{CARD} pre >> nth=1")
        assert "\\u{202e}" in shown
        assert "<img src=x" in shown
        await (
            page.get_by_role("group", name="Approve delete")
            .first.get_by_text("Allow" if allow else "Don't allow", exact=True)
            .click()
        )
        await until(page, f"document.querySelectorAll('{CARD}').length == 1")
        await say(page, "/no")
        await until(page, f"document.querySelector('{REPLY}')")
        assert await page.locator(CARD).count() == 0
        assert tools.ran == ["c1"] * allow


async def test_words_say_which_one(folder: Path, visits: Callable[..., Any]) -> None:
    tools = Tools("c1", "c2")
    async with served(folder, ScriptedRunner(tools)) as (_, port):
        page = await (await visits(port)).page()
        await say(page, "/yes")
        await page.locator("#log").get_by_text("Nothing is being asked.").wait_for()
        await say(page, "Delete the old files")
        await until(page, f"document.querySelectorAll('{CARD}').length == 2")
        await say(page, "/yes")
        await page.locator("#log").get_by_text("Which one? /yes 1 or /yes 2").wait_for()
        await say(page, "/yes 2")
        await until(page, f"document.querySelectorAll('{CARD}').length == 1")
        await page.reload()
        await until(page, f"document.querySelectorAll('{CARD}').length == 1")
        await say(page, "/stop")
        await page.locator("#log").get_by_text("Stopped", exact=True).wait_for()
        await until(page, f"!document.querySelector('{CARD}')")
        assert tools.ran == ["c2"]


async def test_a_second_tab_shows_what_is_decided(folder: Path, visits: Callable[..., Any]) -> None:
    async with served(folder, ScriptedRunner(Tools("c1"))) as (_, port):
        visit = await visits(port)
        first = await visit.page()
        await say(first, "Delete the old files")
        await first.wait_for_selector(CARD)
        second = await visit.page()
        await second.wait_for_selector(CARD)
        await second.get_by_text("Don't allow", exact=True).click()
        for page in (first, second):
            await until(page, f"!document.querySelector('{CARD}')")
            await until(page, f"document.querySelector('{REPLY}')")


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
)
async def test_the_card_can_be_read(
    folder: Path, visits: Callable[..., Any], scheme: str, width: int
) -> None:
    path = "/srv/projects/2026/quarterly-report/drafts/" + "very-long-name-" * 4 + ".txt"
    async with served(folder, ScriptedRunner(Tools(path))) as (_, port):
        page = await (await visits(port)).page(color_scheme=scheme, viewport={"width": width, "height": 700})
        await say(page, "Delete the drafts that nobody needs any more, please")
        await page.wait_for_selector(CARD)
        await picture(page, f"approval-{scheme}-{width}")
        box = await page.locator(CARD).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        for button in await page.locator(f"{CARD} button").all():
            size = await button.bounding_box()
            assert size is not None
            assert size["height"] >= 32


async def test_a_steered_message_stands_under_its_question(folder: Path, visits: Callable[..., Any]) -> None:
    gate = Gate("")

    async def steps(ask: Any) -> Any:
        yield [Assistant(content="Looking.", finish="tool_calls")]
        gate.entered.set()
        await gate.open.wait()
        ask.person.more()
        yield [Assistant(content="Found it.", finish="stop")]

    async with served(folder, ScriptedRunner(steps), mode="steer") as (_, port):
        page = await (await visits(port)).page()
        await say(page, "Find it")
        await gate.entered.wait()
        await say(page, "The blue one")
        await page.wait_for_selector("#queue .message[data-state=queued]")
        gate.open.set()
        await page.locator("#log").get_by_text("Found it.").wait_for()
        texts = [text.strip() for text in await page.locator("#events .message .body").all_inner_texts()]
        assert texts == ["Find it", "Looking.", "The blue one", "Found it."]
