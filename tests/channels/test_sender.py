"""What one client is sent, and that nothing runs for a client that is sent nothing."""

import asyncio
import json
from typing import Any, cast

import pytest

from channels import wire
from channels.base import Delta, Session, Watch
from channels.outbox import MAX_FRAMES
from channels.sender import Sender, TooSlow
from channels.view import HtmlView, TextView, View
from channels.webchat.renderer import HtmlRenderer
from session.events import Record

TIMEOUT = 15.0


class Sink:
    """Keeps what it is sent; `open` is cleared by a test: the client takes nothing."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Exception | None = None
        self._news = asyncio.Event()

    async def send(self, frames: list[bytes]) -> None:
        await self.open.wait()
        if self.fault:
            raise self.fault
        self.sent += [json.loads(frame) for frame in frames]
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while len(self.sent) < count:
                self._news.clear()
                await self._news.wait()


class Nothing:
    """A `Watch` of a session in which nothing was said."""

    running = None
    cursor = None


WELCOME = wire.Welcome(session_id="s", agent="main", model="demo", turns=0, running=None)


def sender(sink: Sink, view: View | None = None) -> tuple[Sender, list[BaseException]]:
    failures: list[BaseException] = []
    return Sender(sink, view or TextView(), cast("Session", None), failures.append), failures


async def begun(sink: Sink, view: View | None = None) -> tuple[Sender, list[BaseException]]:
    made, failures = sender(sink, view)
    made.begin(WELCOME, cast("Watch", Nothing()), None)
    await sink.until(1)
    return made, failures


def _paragraph(text: str) -> str:
    return f'<p dir="auto">{text}</p>'


async def idle(made: Sender) -> None:
    async with asyncio.timeout(TIMEOUT):
        while task := made._task:
            await asyncio.wait({task})
            await asyncio.sleep(0)  # its callbacks have their turn


async def test_the_welcome_comes_first_and_an_idle_client_has_no_task() -> None:
    sink = Sink()
    made, failures = sender(sink)
    made.begin(WELCOME, cast("Watch", Nothing()), None)
    made.put(wire.Notice(text="early"))
    await sink.until(2)
    assert [frame["type"] for frame in sink.sent] == ["welcome", "notice"]
    await idle(made)
    for number in range(3):
        made.put(wire.Notice(text=str(number)))
    await sink.until(5)
    await idle(made)
    assert [frame["text"] for frame in sink.sent[2:]] == ["0", "1", "2"]
    assert not failures
    await made.close()


async def test_what_comes_while_the_client_is_slow_is_merged_and_sent_later() -> None:
    sink = Sink()
    made, _ = await begun(sink)
    sink.open.clear()
    for letter in "abc":
        made.put(Delta("t1", letter))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    sink.open.set()
    await sink.until(3)
    await idle(made)
    assert [frame["text"] for frame in sink.sent[1:]] == ["a", "bc"]
    await made.close()


async def test_a_client_that_takes_nothing_is_too_slow_once() -> None:
    sink = Sink()
    made, failures = await begun(sink)
    sink.open.clear()
    for number in range(3 * MAX_FRAMES):
        made.put(wire.Notice(text=str(number)))
    assert [type(failure) for failure in failures] == [TooSlow]
    await made.close()


async def test_pages_of_the_history_are_made_one_at_a_time() -> None:
    class Past:
        """A session that counts how often it is read."""

        def __init__(self) -> None:
            self.read = 0

        async def before(self, cursor: str | None, limit: int) -> list[Record]:
            self.read += 1
            return []

    sink, past = Sink(), Past()
    failures: list[BaseException] = []
    made = Sender(sink, TextView(), cast("Session", past), failures.append)
    made.begin(WELCOME, cast("Watch", Nothing()), None)
    await sink.until(1)
    await idle(made)
    sink.open.clear()
    for _ in range(20):
        made.put(wire.History())
    await asyncio.sleep(0.01)
    assert past.read == 1
    sink.open.set()
    await sink.until(21)
    assert past.read == 20
    await made.close()


async def test_a_carrier_that_breaks_is_told_of() -> None:
    sink = Sink()
    made, failures = await begun(sink)
    sink.fault = ConnectionResetError("gone")
    made.put(wire.Notice(text="a"))
    await idle(made)
    assert failures == [sink.fault]
    await made.close()


async def test_what_the_view_holds_back_comes_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HtmlView, "INTERVAL", 0.02)
    sink = Sink()
    made, _ = await begun(sink, HtmlView(HtmlRenderer()))
    made.put(Delta("t1", "one"))
    await sink.until(2)
    made.put(Delta("t1", " two"))  # sooner than the interval is over
    await sink.until(3)
    assert [frame["html"] for frame in sink.sent[1:]] == [_paragraph("one"), _paragraph("one two")]
    await made.close()
    await idle(made)
    assert made._due is None or made._due.cancelled()
