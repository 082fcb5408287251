"""What a crash at any point leaves of a reply, and what the next start makes of it."""

import asyncio
from collections.abc import Callable

import pytest
from telegram import Bot
from telegram.error import BadRequest

from channels.errors import Refused
from channels.telegram.chunks import split
from channels.telegram.delivery import Deliveries
from channels.telegram.render import render
from channels.telegram.reply import Streaming
from session.events import System
from tests.channels.telegram.stage import (
    ANSWER,
    LONG,
    SHOWN,
    FakeSession,
    Wait,
    delivered,
    private,
    shows_once,
)
from tests.fakes.telegram_server import (
    Hang,
    TelegramServer,
)

GROUP = -100
FORUM = -1_001_000_000_001


class Crash:
    """Ends everything at the n-th call, or the n-th record: before it, or after it and before it is known."""

    def __init__(self, server: TelegramServer, session: FakeSession, at: int, where: str) -> None:
        self.happened = False
        self._at = at
        self._after = where.startswith("after")
        if where.endswith("call"):
            server.fail(
                "*", Hang(commit=self._after), when=lambda asked: "action" not in asked and self._now()
            )
        else:
            self._session = session
            session.keep = self._keep

    def _now(self) -> bool:
        self._at -= 1
        self.happened = self.happened or self._at == 0
        return self._at == 0

    async def _keep(self, event: System) -> None:
        if self._now():
            if self._after:
                self._session.stores(event)
            await asyncio.Event().wait()


EVERYWHERE = [
    (at, where)
    for where, count in (("before call", 7), ("after call", 7), ("before record", 4), ("after record", 4))
    for at in range(1, count + 1)
]


@pytest.mark.parametrize(("at", "where"), EVERYWHERE)
async def test_a_stored_reply_is_brought_once_wherever_a_crash_comes(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait, at: int, where: str
) -> None:
    ann, session = server.user(7), private()
    crash = Crash(server, session, at, where)
    first = make()
    first.attend(session)
    session.ends("t1", LONG)
    await wait(lambda: crash.happened or delivered(session))
    assert crash.happened or at == 7  # six calls
    await settled(server, where)
    await first.close(0)
    server.heal()
    again = session.after_restart()
    make().attend(again)
    await wait(lambda: delivered(again))
    shows_once(ann.chat, LONG)


@pytest.mark.parametrize(("at", "where"), EVERYWHERE)
async def test_a_turn_that_runs_again_goes_on_in_its_bubbles(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait, at: int, where: str
) -> None:
    ann, session = server.user(7), private()
    crash = Crash(server, session, at, where)
    first = make()
    first.attend(session)
    session.begins("t1", "7_1")
    session.says("t1", LONG[:3_000])
    await wait(lambda: crash.happened or session.recorded("sent"))
    session.says("t1", LONG[3_000:])
    await wait(lambda: crash.happened or len(session.recorded("sent")) == 3)
    await settled(server, where)
    await first.close(0)
    server.heal()
    again = session.after_restart()
    make().attend(again)
    again.begins("t1", "7_1", attempt=2)
    again.says("t1", "Another ")
    again.ends("t1", "Another answer this time.")
    await wait(lambda: delivered(again))
    texts = ann.chat.texts()
    assert texts.count("Another answer this time.") == 1
    assert len(texts) <= 2
    assert all(text.endswith("…") for text in texts if text != "Another answer this time.")


async def test_half_a_reply_of_another_gateway_never_comes_over_the_whole_one(
    server: TelegramServer, bot: Bot, make: Callable[..., Deliveries], wait: Wait
) -> None:
    """One that stood still goes on where it was, and edits the bubble that it knows: it is there no more."""
    ann, session = server.user(7), private()
    frozen = make(shared=True)
    frozen.attend(session)
    session.begins("t1", "7_1")
    session.says("t1", "It is five past ")
    await wait(lambda: session.recorded("sent"))
    (half,) = session.sent("t1")
    again = session.after_restart()  # whoever goes on does not see that the other one is at it
    other = make(shared=True)
    other.attend(again)
    again.begins("t1", "7_1", attempt=2)
    again.says("t1", "It is ")
    again.ends("t1", ANSWER)
    await wait(lambda: delivered(again))
    with pytest.raises(BadRequest, match="not found"):
        await bot.edit_message_text("It is five past …", 7, half.message_id)
    assert ann.chat.texts() == [SHOWN]
    assert [sent.message_id == half.message_id for sent in again.sent("t1")] == [True, False]


async def test_of_a_turn_that_is_over_another_gateway_goes_on_in_its_bubbles(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait
) -> None:
    """Whatever the other one still writes is the whole reply."""
    ann, session = server.user(7), private()
    first = make(shared=True)
    first.attend(session)
    session.begins("t1", "7_1")
    session.says("t1", "It is five past ")
    await wait(lambda: session.recorded("sent"))
    await first.close(0)
    again = session.after_restart()
    again.ends("t1", ANSWER)
    make(shared=True).attend(again)
    await wait(lambda: delivered(again))
    assert ann.chat.texts() == [SHOWN]
    assert len(server.calls_of("sendMessage")) == 1


async def settled(server: TelegramServer, where: str) -> None:
    """What was cut off after a call has been carried out."""
    if where == "after call":
        await server.until(lambda: all(c.committed for c in server.calls if c.method != "sendChatAction"))


@pytest.mark.parametrize("streaming", ["off", "draft"])
async def test_without_edits_a_crash_loses_nothing(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait, streaming: Streaming
) -> None:
    ann, session = server.user(7), private()
    crash = Crash(server, session, 2, "after call")
    first = make(streaming)
    first.attend(session)
    session.ends("t1", LONG)
    await wait(lambda: crash.happened)
    await settled(server, "after call")
    await first.close(0)
    again = session.after_restart()
    make(streaming).attend(again)
    await wait(lambda: delivered(again))
    one, two, three = (part.text for part in split(render(LONG)))
    assert ann.chat.texts() == [one, two, two, three]  # as the docs say, one can come twice


async def test_nothing_is_sent_before_what_was_sent_is_recorded(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = server.user(7), private()
    refused: list[str] = []

    async def full(event: System) -> None:
        if len(refused) < 5:
            refused.append(event.name)
            assert len(ann.chat.shown) == 1
            raise Refused("storage_unavailable", "The disk is full.")

    session.keep = full
    deliveries.attend(session)
    session.ends("t1", LONG)
    await wait(lambda: delivered(session))
    assert refused == ["sent"] * 5
    shows_once(ann.chat, LONG)
