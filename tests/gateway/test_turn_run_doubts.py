"""The answer to a turn's last append is lost, and the turn is stopped: it is closed once all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from gateway.lane import Lane
from gateway.rules import Rules
from gateway.turn import Ask, Runner
from session import events
from session.errors import StorageError
from session.events import Assistant, Event, Record, ToolCall, closes
from session.ids import SessionId
from session.protocols import SharedStore

SESSION = SessionId("agent:main:cli:work")


class Lossy:
    """A store that carries out an append that closes a turn, loses its answer, and is away until `back`."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.lost = asyncio.Event()
        self.away = False
        self._told = 0
        self._foreign: Callable[[list[Record]], None] = lambda records: None

    def append(self, session: SessionId, batch: list[Event], **how: Any) -> asyncio.Future[list[Record]]:
        answer: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        first = len(self.records) + 1
        new = [Record(f"{seq}.x", event, events.encode(event)[:-1]) for seq, event in enumerate(batch, first)]
        self.records += new
        if any(closes(event) for event in batch) and not self.lost.is_set():
            self.away = True
            answer.set_exception(StorageError("the answer was lost"))
            self.lost.set()
        else:
            self._told = len(self.records)
            answer.set_result(new)
        return answer

    async def recent(self, session: SessionId, enough: Callable[[Record], bool]) -> list[Record]:
        return self.records[-20:]

    async def claim(self, session: SessionId) -> bool:
        if self.away:
            raise StorageError("away")
        return True

    def holds(self, session: SessionId) -> bool:
        return True

    def follow(self, session: SessionId, after: str | None, on_foreign: Any, on_broken: Any) -> Any:
        self._foreign = on_foreign
        return self

    def catch_up(self) -> asyncio.Future[bool]:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self.away and (news := self.records[self._told :]):
            self._told = len(self.records)
            self._foreign(news)
        done.set_result(not self.away)
        return done

    def close(self) -> None:
        pass


class Answers:
    async def run(self, ask: Ask) -> AsyncGenerator[list[Event]]:
        yield [Assistant(content="The answer.", finish="stop")]

    def repeatable(self, call: ToolCall) -> bool:
        return False


async def test_a_stop_comes_after_an_answer_that_was_stored() -> None:
    store, tried, back = Lossy(), asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        tried.set()
        await back.wait()

    shared = cast(SharedStore, store)
    runner = cast(Runner, Answers())
    lane = Lane(SESSION, shared, runner, asyncio.Semaphore(1), Rules(), sleep=sleep, shared=shared)
    await lane.open()
    async with asyncio.timeout(10):
        await lane.submit("m1", "Hello")
        await store.lost.wait()
        await tried.wait()
        tried.clear()
        assert lane.stop()
        await tried.wait()  # the stop cannot be stored either, for now
        store.away = False
        back.set()
        while not lane.idle:  # noqa: ASYNC110 - no event tells that a lane is idle
            await asyncio.sleep(0)
    assert [record.event.content for record in store.records if closes(record.event)] == ["The answer."]
    await lane.close()
