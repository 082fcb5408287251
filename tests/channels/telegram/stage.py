"""What the tests of the outgoing half share: time that a test moves, and a session without a gateway."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from channels.base import Answer, Delivery, Delta, Done, Receipt, Running, Sent, Started, Stored, Update
from channels.telegram.chunks import split
from channels.telegram.delivery import Deliveries
from channels.telegram.render import render
from session.events import Assistant, Event, Finish, Record, System, closes, encode
from session.ids import AgentId, SessionId
from tests.fakes.telegram_chats import Chat
from tests.fakes.telegram_people import Person
from tests.fakes.telegram_server import TelegramServer

T = TypeVar("T")

Wait = Callable[[Callable[[], object]], Awaitable[None]]  # the fixture `wait`

ANSWER = "It is **five past ten**, and all is well."
SHOWN = "It is five past ten, and all is well."
LONG = "\n\n".join(f"Paragraph {number}. " + "words of it " * 80 for number in range(9))  # three messages

_PATIENCE = 10.0  # real seconds for any condition
_QUIET = 0.02  # real seconds without a call or a record, after which everybody waits for time to pass


class Time:
    """Seconds that pass only for whoever sleeps by them: a test, or the fake server, reads the same ones."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), waking))
        await waking

    def go_to_next(self) -> None:
        """Wake who sleeps the shortest."""
        while self._sleepers:
            at, _, waking = heapq.heappop(self._sleepers)
            if not waking.done():
                self.now = max(self.now, at)
                waking.set_result(None)
                return

    def go_on(self, seconds: float) -> None:
        """Let this much time pass, and wake whoever slept no longer."""
        end = self.now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self.go_to_next()
        self.now = end


class FakeWatch:
    def __init__(self, session: FakeSession) -> None:
        self.running = session.running
        self.cursor: str | None = None
        self._session = session

    def close(self) -> None:
        self._session.watcher = None


class NotOfTelegram:
    """What the channel of Telegram never asks of a `channels.base.Session`."""

    async def submit(self, id: str, text: str) -> Receipt | Answer:
        raise NotImplementedError

    async def retry(self, id: str, of: str) -> Receipt:
        raise NotImplementedError

    def stop(self) -> bool:
        raise NotImplementedError

    async def approve(self, call_id: str, allow: bool) -> None:
        raise NotImplementedError

    async def after(self, cursor: str | None, limit: int, until: str | None) -> list[Record]:
        raise NotImplementedError


@dataclass
class FakeSession(NotOfTelegram):
    """A transcript in memory. `keep` stands before every record: it may wait, or raise `Refused`."""

    id: SessionId
    events: list[Event] = field(default_factory=list)
    keep: Callable[[System], Awaitable[None]] | None = None
    watcher: Callable[[Update], None] | None = None
    running: Running | None = None
    agent = AgentId("main")
    model = "fake-1"
    turns = 0

    def after_restart(self) -> FakeSession:
        """The same transcript, read again."""
        return FakeSession(self.id, self.events)

    # -- the turn's side -------------------------------------------------------------------------

    def tell(self, update: Update) -> None:
        if self.watcher:
            self.watcher(update)

    def begins(self, turn: str, *answers: str, attempt: int = 1) -> None:
        self.tell(Started(turn, answers, attempt))

    def says(self, turn: str, text: str) -> None:
        self.tell(Delta(turn, text))

    def stores(self, event: Event) -> None:
        self.events.append(event)
        self.tell(Stored(Record(str(len(self.events)), event, encode(event)[:-1])))

    def calls_tool(self, turn: str, text: str) -> None:
        self.stores(Assistant(content=text, turn=turn, finish="tool_calls"))

    def ends(self, turn: str, text: str, *answers: str, finish: Finish = "stop") -> None:
        self.stores(Assistant(content=text, turn=turn, answers=answers or ("7_1",), finish=finish))
        self.tell(Done(turn, "completed", ""))

    def fails(self, turn: str, text: str, *answers: str) -> None:
        self.stores(System(name="turn_failed", turn=turn, answers=answers or ("7_1",), content=text))
        self.tell(Done(turn, "failed", ""))

    # -- the channel's side ----------------------------------------------------------------------

    def watch(self, update: Callable[[Update], None]) -> FakeWatch:
        self.watcher = update
        return FakeWatch(self)

    async def record(self, events: list[Event]) -> None:
        for event in events:
            assert isinstance(event, System)
            if self.keep:
                await self.keep(event)
            self.stores(event)

    def recorded(self, name: str) -> list[System]:
        return [event for event in self.events if isinstance(event, System) and event.name == name]

    def sent(self, turn: str) -> list[Sent]:
        found = [event for event in self.recorded("sent") if event.turn == turn]
        return [Sent(event.part or 0, event.message_id or 0, event.chat or "") for event in found]

    @property
    def address(self) -> str | None:
        moved = self.recorded("address")
        return moved[-1].chat if moved else None

    def undelivered(self) -> list[Delivery]:
        found = []
        for event in self.events:
            if (answers := closes(event)) is None:
                continue
            assert isinstance(event, Assistant | System)
            turn = event.turn or ""
            failed = [f for f in self.recorded("delivery_failed") if f.turn == turn]
            if any(d.turn == turn for d in self.recorded("delivered")) or any(f.final for f in failed):
                continue
            texts = [e.content for e in self.events if isinstance(e, Assistant) and e.turn == turn]
            if isinstance(event, System):
                texts.append(event.content or "")
            finish = event.finish or "stop" if isinstance(event, Assistant) else "failed"
            found.append(Delivery(turn, answers, tuple(texts), finish, tuple(self.sent(turn)), len(failed)))
        return found

    # -- not for this half -----------------------------------------------------------------------

    async def before(self, cursor: str | None, limit: int) -> list[Record]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


async def until(
    server: TelegramServer, time: Time, condition: Callable[[], object], *, still: bool = False
) -> None:
    """Wait for a condition; whenever nothing goes on, time goes on to whoever sleeps the shortest.

    `still`: time stands.
    """
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(_PATIENCE):
        calls, since = -1, clock()
        while not condition():
            if len(server.calls) != calls:
                calls, since = len(server.calls), clock()
            elif clock() - since > _QUIET and not still:
                time.go_to_next()
                since = clock()
            await asyncio.sleep(0.001)


async def finished(server: TelegramServer, time: Time, call: Coroutine[Any, Any, T]) -> T:
    """What comes of a call, however much time it needs."""
    task = asyncio.create_task(call)
    await until(server, time, task.done)
    return task.result()


def private(user: int = 7) -> FakeSession:
    return FakeSession(SessionId(f"agent:main:telegram:user:{user}"))


def of_chat(peer: str) -> FakeSession:
    return FakeSession(SessionId(f"agent:main:telegram:chat:{peer}"))


def begun(server: TelegramServer, deliveries: Deliveries, text: str) -> tuple[Person, FakeSession]:
    """Ann, and her session in which a turn has begun and said this much."""
    session = private()
    deliveries.attend(session)
    session.begins("t1", "7_1")
    session.says("t1", text)
    return server.user(7), session


def delivered(session: FakeSession) -> bool:
    return not session.undelivered()


def recorded(session: FakeSession, name: str, count: int) -> Callable[[], bool]:
    return lambda: len(session.recorded(name)) == count


def idle(deliveries: Deliveries) -> Callable[[], bool]:
    return lambda: not deliveries.waiting


def shows(chat: Chat, words: str) -> Callable[[], bool]:
    return lambda: any(words in text for text in chat.texts())


def shows_once(chat: Chat, text: str) -> None:
    """Each part of the reply was seen whole in one bubble ever, and at most one beginning is left over."""
    parts = split(render(text))
    for part in parts:
        assert len({shown.message_id for shown in chat.shown if shown.text == part.text}) == 1
    left = [shown for shown in chat.texts() if shown not in [part.text for part in parts]]
    assert len(left) <= 1
    assert all(shown.endswith("…") for shown in left)
    assert [shown for shown in chat.texts() if shown not in left] == [part.text for part in parts]
