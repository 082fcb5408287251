"""Questions in Telegram, from the message with buttons to what it says in the end, without a model."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from channels.telegram.asking import ALLOWED, ASKED, NOT_ALLOWED, OVER, TOO_LATE
from channels.telegram.buttons import keyboard
from channels.telegram.channel import TelegramChannel
from channels.telegram.intake import HASTY, NOT_YOU, QUESTION_OVER
from channels.telegram.journal import Journal
from channels.telegram.pairing import FILE, Pairing
from channels.telegram.settings import Settings
from gateway.commands import COMMANDS
from session.ids import SessionId
from tests.fakes.gateway import Gateway, ScriptedRunner, Tools
from tests.fakes.kept import both_stores
from tests.fakes.telegram_chats import Message
from tests.fakes.telegram_people import Person
from tests.fakes.telegram_server import AnswerLost, TelegramServer

GROUP = -100
TIMEOUT = 15.0
HASTE = 50.0  # the channel's own pace, which is Telegram's, so many times as fast
ANN = SessionId("agent:main:telegram:user:7")
COMMAND_ROWS = [(command.name, command.summary) for command in COMMANDS.values()]


class Scene(NamedTuple):
    """A gateway with a Telegram channel, and Ann, who is let in."""

    gateway: Gateway
    channel: TelegramChannel
    server: TelegramServer
    ann: Person
    tools: Tools

    async def question(self, count: int = 1, chat: Person | None = None) -> Message:
        """The `count`-th message with buttons, waited for."""
        messages = (chat or self.ann).chat.bot_messages
        await self.server.until(lambda: len([m for m in messages() if m.keyboard]) >= count, TIMEOUT)
        return [message for message in messages() if message.keyboard][count - 1]

    async def says(self, wanted: str, count: int = 1) -> None:
        """Wait until that stands in Ann's chat."""
        await self.server.until(
            lambda: sum(wanted in text for text in self.ann.chat.texts()) >= count, TIMEOUT
        )

    async def popup(self, query: str) -> str:
        """What was shown to whoever pressed the button."""
        await self.server.until(lambda: query in self.server.popups, TIMEOUT)
        return self.server.popups[query]


@asynccontextmanager
async def scene(
    folder: Path, tools: Tools, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, **settings: Any
) -> AsyncIterator[Scene]:
    async with (
        TelegramServer() as server,
        Gateway(folder, ScriptedRunner(tools), sleep=sleep) as gateway,
        running(gateway, server, **settings) as channel,
    ):
        yield Scene(gateway, channel, server, server.user(7, "Ann"), tools)


@asynccontextmanager
async def running(
    gateway: Gateway, server: TelegramServer, allow: tuple[str, ...] = ("7",)
) -> AsyncIterator[TelegramChannel]:
    folder = gateway.store.data_dir
    settings = Settings(bot_token=server.token, api_url=server.api_url, allow=allow, streaming="off")
    channel = TelegramChannel(
        settings,
        gateway.router,
        folder,
        Pairing(Journal(folder / FILE)),
        COMMAND_ROWS,
        clock=lambda: time.monotonic() * HASTE,
        sleep=lambda seconds: asyncio.sleep(seconds / HASTE),
        long_poll=5,
    )
    gateway.router.employ(channel.courier)
    ready = asyncio.Event()
    task = asyncio.create_task(channel.run(ready.set))
    await ready.wait()
    try:
        yield channel
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize(
    ("allow", "words", "said"), [("yes", ALLOWED, "Allowed."), ("no", NOT_ALLOWED, "Not allowed.")]
)
async def test_a_button_decides(folder: Path, allow: str, words: str, said: str) -> None:
    async with scene(folder, Tools("c1")) as on:
        on.ann.says("Delete it")
        question = await on.question()
        assert question.text == f'delete\n{{"path": "c1"}}\n{ASKED}'
        assert [entity["type"] for entity in question.entities] == ["bold", "pre"]
        query = on.ann.presses(question, f"{allow} c1")
        assert await on.popup(query) == said
        await on.says("echo: Delete it")
        await on.says(words)
        assert question.text == f'delete\n{{"path": "c1"}}\n{words}'
        assert question.keyboard is None
        assert on.tools.ran == ["c1"] * (allow == "yes")


async def test_a_second_press_is_answered_and_changes_nothing(folder: Path) -> None:
    async with scene(folder, Tools("c1")) as on:
        on.ann.says("Delete it")
        question = await on.question()
        first, second = on.ann.presses(question, "no c1"), on.ann.presses(question, "yes c1")
        assert await on.popup(first) == "Not allowed."
        assert await on.popup(second) == QUESTION_OVER
        await on.says("echo: Delete it")
        await on.says(NOT_ALLOWED)
        assert not on.tools.ran


async def test_two_questions_have_buttons_of_their_own(folder: Path) -> None:
    async with scene(folder, Tools("c1", "c2")) as on:
        on.ann.says("Delete them")
        first, second = await on.question(1), await on.question(2)
        on.ann.presses(second, "yes c2")
        await on.says(ALLOWED)
        assert first.keyboard
        on.ann.presses(first, "no c1")
        await on.says(NOT_ALLOWED)
        await on.says("echo: Delete them")
        assert on.tools.ran == ["c2"]


async def test_only_people_who_are_let_in_decide(folder: Path) -> None:
    async with scene(folder, Tools("c1")) as on:
        mallory, group = on.server.user(66, "Mallory"), on.server.group(GROUP)
        on.ann.says("@lunar_bot delete it", into=group)
        await on.server.until(lambda: any(m.keyboard for m in group.chat.bot_messages()))
        [question] = [m for m in group.chat.bot_messages() if m.keyboard]
        assert await on.popup(mallory.presses(question, "yes c1")) == NOT_YOU
        assert not on.tools.ran
        assert question.keyboard
        assert await on.popup(on.ann.presses(question, "yes c1")) == "Allowed."
        await on.server.until(lambda: on.tools.ran)


async def test_a_button_of_another_chat_decides_nothing_here(folder: Path) -> None:
    async with scene(folder, Tools("c1"), allow=("7", "8")) as on:
        bea = on.server.user(8, "Bea")
        on.ann.says("Delete it")
        question = await on.question()
        forged = on.server.message(bea.chat, bea.says("mine"))
        forged.by_bot, forged.keyboard = True, question.keyboard
        assert await on.popup(bea.presses(forged, "yes c1")) == QUESTION_OVER
        assert not on.tools.ran
        assert question.keyboard


async def test_a_forged_button_decides_nothing(folder: Path) -> None:
    async with scene(folder, Tools("c1")) as on:
        on.ann.says("Delete it")
        question = await on.question()
        for data in ("yes", "yes c1 c2", "maybe c1", "yes c9", "x" * 64):
            forged = {"inline_keyboard": [[{"text": "?", "callback_data": data}]]}
            message = on.ann.chat.add(on.server.bot_user, "?", by_bot=True, keyboard=forged)
            assert await on.popup(on.ann.presses(message, data)) == QUESTION_OVER
            await on.server.until(lambda message=message: message.keyboard is None)  # type: ignore[misc] # bound now
        assert not on.tools.ran
        assert question.keyboard


async def test_words_decide_too(folder: Path) -> None:
    async with scene(folder, Tools("c1", "c2")) as on:
        on.ann.says("Delete them")
        await on.question(2)
        on.ann.says("/yes")
        await on.says("Which one? /yes NUMBER")
        on.ann.says("/yes 2")
        await on.says('Allowed: delete {"path": "c2"}')
        on.ann.says("/no")
        await on.says('Not allowed: delete {"path": "c1"}')
        await on.says("echo: Delete them")
        assert on.tools.ran == ["c2"]


async def test_a_word_from_before_the_question_is_no_answer(folder: Path) -> None:
    """As when the gateway was away while it was written, and asks something else now."""
    async with scene(folder, Tools("c1")) as on:
        on.server.updates.allow(["edited_message"])
        early = on.ann.says("/yes")
        on.server.updates.allow([])
        on.ann.says("Delete it")
        await on.question()
        on.server.updates.push("message", early.api(), 7)
        await on.says(HASTY)
        assert not on.tools.ran
        on.ann.says("/yes")
        await on.says("Allowed:")


async def test_no_answer_in_time(folder: Path) -> None:
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await over.wait()

    async with scene(folder, Tools("c1"), sleep) as on:
        on.ann.says("Delete it")
        question = await on.question()
        over.set()
        await on.server.until(lambda: question.text.endswith((TOO_LATE, NOT_ALLOWED)))
        assert question.keyboard is None
        await on.says("echo: Delete it")


async def test_a_stop_takes_the_question_back(folder: Path) -> None:
    async with scene(folder, Tools("c1")) as on:
        on.ann.says("Delete it")
        question = await on.question()
        on.ann.says("/stop")
        await on.server.until(lambda: question.text.endswith(OVER))
        assert question.keyboard is None
        assert not on.tools.ran


@both_stores
async def test_a_restart_asks_anew_and_the_old_buttons_are_over(folder: Path) -> None:
    async with TelegramServer() as server:
        ann = server.user(7, "Ann")
        first = Tools("c1")
        async with Gateway(folder, ScriptedRunner(first)) as gateway, running(gateway, server):
            ann.says("Delete it")
            await server.until(lambda: any(m.keyboard for m in ann.chat.bot_messages()))
            [old] = [m for m in ann.chat.bot_messages() if m.keyboard]
            await gateway.router.drain(5)
        assert not first.ran
        second = Tools("c2")
        runner = ScriptedRunner(second)
        async with Gateway(folder, runner) as gateway, running(gateway, server):
            query = ann.presses(old, "yes c1")
            await server.until(lambda: query in server.popups)
            assert server.popups[query] == QUESTION_OVER
            await server.until(lambda: old.keyboard is None)
            await gateway.router.resume()
            await gateway.router.drain(5)
        assert (first.ran, second.ran) == ([], [])


async def test_long_and_hostile_arguments_are_shown_safely(folder: Path) -> None:
    evil = "\u202e\x1b[2J<b>`" + "😀" * 3000
    async with scene(folder, Tools(evil)) as on:
        on.ann.says("Delete it")
        await on.server.until(lambda: on.ann.chat.texts())
        [text] = on.ann.chat.texts()
        assert "\\u202e" in text
        assert "\x1b" not in text
        assert "… (cut: 30" in text
        assert keyboard(evil) is None  # its id is the argument here; one of ours is 13 characters
        on.ann.says("/no")
        await on.says("echo: Delete it")


async def test_a_question_that_may_have_arrived_is_asked_again(folder: Path) -> None:
    async with scene(folder, Tools("c1")) as on:
        on.server.fail("sendMessage", AnswerLost())
        on.ann.says("Delete it")
        first, second = await on.question(1), await on.question(2)
        on.ann.presses(first, "yes c1")
        await on.server.until(lambda: second.text.endswith(ALLOWED))
        assert await on.popup(on.ann.presses(first, "yes c1")) == QUESTION_OVER
        await on.server.until(lambda: first.keyboard is None)
