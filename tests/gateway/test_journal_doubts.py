"""The answer to a turn's append is lost: whether it was stored is known before it is stored again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from gateway.journal import Journal
from session import events
from session.errors import StorageError
from session.events import Assistant, Event, Record, System
from session.ids import SessionId
from session.protocols import TranscriptStore

OURS = events.stamped(Assistant(content="The answer.", turn="t1", answers=("m1",), finish="stop"))


class Lossy:
    """A store that carries out an append and loses its answer; `reads` says whether looking works."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.reads = True
        self._told = 0
        self._foreign: Callable[[list[Record]], None] = lambda records: None

    def write(self, *batch: Event) -> None:
        for event in batch:
            self.records.append(Record(f"{len(self.records) + 1}.x", event, events.encode(event)[:-1]))

    def append(self, session: SessionId, batch: list[Event], **how: Any) -> asyncio.Future[list[Record]]:
        self.write(*batch)
        lost: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        lost.set_exception(StorageError("the answer was lost"))
        return lost

    async def claim(self, session: SessionId) -> bool:
        return True

    async def recent(self, session: SessionId, enough: Callable[[Record], bool]) -> list[Record]:
        return self.records[-20:]

    def follow(self, session: SessionId, after: str | None, on_foreign: Any, on_broken: Any) -> Any:
        self._told, self._foreign = len(self.records), on_foreign
        return self

    def catch_up(self) -> asyncio.Future[bool]:
        if self.reads:
            self._foreign(self.records[self._told :])
            self._told = len(self.records)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.set_result(self.reads)
        return done


async def opened(store: Lossy) -> Journal:
    place = SessionId("agent:main:cli:work")
    journal = Journal(place, cast(TranscriptStore, store), 20, push=False, shared=True)
    await journal.open()
    return journal


async def test_a_look_that_fails_says_nothing_of_what_is_stored() -> None:
    store = Lossy()
    journal = await opened(store)
    await asyncio.wait({journal.append([OURS], leased=True)})
    store.reads = False
    await journal.fresh(None)
    assert not journal.told([OURS])
    assert journal.uncertain  # so nobody stores it again
    store.reads = True
    await journal.fresh(None)
    assert journal.told([OURS])
    assert not journal.uncertain


async def test_much_from_others_does_not_hide_what_was_stored() -> None:
    store = Lossy()
    journal = await opened(store)
    await asyncio.wait({journal.append([OURS], leased=True)})
    store.write(*(events.stamped(System(name="context", content=str(number))) for number in range(500)))
    await journal.fresh(None)
    assert journal.told([OURS])
    assert not journal.told([events.stamped(Assistant(content="Another one.", turn="t1"))])
