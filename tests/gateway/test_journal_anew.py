"""A transcript is read anew, after a fail-over, while this node and others store: all is shown, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from channels.base import Stored, Update
from gateway.journal import Journal
from session import events
from session.errors import BadCursor
from session.events import Event, Record, User
from session.ids import SessionId
from session.protocols import TranscriptStore


class Shared:
    """A store that others write to as well; it is read once `readable` is set."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.readable = asyncio.Event()
        self.readable.set()
        self.asked = asyncio.Event()  # set by whoever reads the end
        self.tail = 262  # events that a reader of the end gets
        self.breaks: Callable[[], None] = lambda: None
        self._foreign: Callable[[list[Record]], None] = lambda records: None
        self._told = 0  # records, when somebody began to follow

    def write(self, *names: str) -> list[Record]:
        batch = [events.stamped(User(content=name, id=name)) for name in names]
        first = len(self.records) + 1
        new = [Record(f"{seq}.x", event, events.encode(event)[:-1]) for seq, event in enumerate(batch, first)]
        self.records += new
        return new

    def append(self, session: SessionId, batch: list[Event], **how: Any) -> asyncio.Future[list[Record]]:
        stored: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        stored.set_result(self.write(*(event.id for event in batch if isinstance(event, User))))
        return stored

    async def recent(self, session: SessionId, enough: Callable[[Record], bool]) -> list[Record]:
        self.asked.set()
        found = self.records[-self.tail :]  # as it is when it is asked for
        await self.readable.wait()
        return found

    async def after(
        self, session: SessionId, cursor: str | None, limit: int, until: str | None = None
    ) -> list[Record]:
        places: list[str | None] = [None, *(record.cursor for record in self.records)]
        if cursor not in places or until not in places:
            raise BadCursor(f"{cursor!r} is not a cursor of this session")
        return self.records[places.index(cursor) : places.index(until)][:limit]

    def follow(self, session: SessionId, after: str | None, on_foreign: Any, on_broken: Any) -> Any:
        self.breaks, self._foreign = on_broken, on_foreign
        self._told = int(after.split(".")[0]) if after else 0
        return self

    async def delete(self, session: SessionId) -> bool:
        self.records.clear()
        return True

    def catch_up(self) -> asyncio.Future[bool]:
        if news := self.records[self._told :]:
            self._told = len(self.records)
            asyncio.get_running_loop().call_soon(self._foreign, news)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.set_result(True)
        return done

    def close(self) -> None:
        pass


class Onlooker:
    """Somebody who watches: the ids of the messages that are shown."""

    def __init__(self, journal: Journal, awaited: int) -> None:
        self.shown: list[str] = []
        self._awaited = awaited
        self._all = asyncio.Event()
        journal.feed.watch(self._see, journal.conversation.cursor)

    def _see(self, update: Update) -> None:
        if isinstance(update, Stored) and isinstance(update.record.event, User):
            self.shown.append(update.record.event.id or "")
            if len(self.shown) == self._awaited:
                self._all.set()

    async def all(self) -> list[str]:
        await asyncio.wait_for(self._all.wait(), 10)
        return self.shown


async def opened(store: Shared) -> Journal:
    place = SessionId("agent:main:cli:work")
    journal = Journal(place, cast(TranscriptStore, store), 20, push=False, shared=True)
    await journal.open()
    return journal


async def test_what_is_stored_while_it_is_read_comes_behind_what_others_stored_before() -> None:
    store = Shared()
    store.write("known")
    journal = await opened(store)
    onlooker = Onlooker(journal, 3)
    store.write("theirs", "theirs too")
    store.readable.clear()
    store.breaks()
    await asyncio.wait({journal.append([User(content="ours", id="ours")])})
    assert onlooker.shown == []  # a client that goes on from there would never see what is before it
    assert journal.conversation.cursor == "1.x"
    store.readable.set()
    assert await onlooker.all() == ["theirs", "theirs too", "ours"]
    assert journal.conversation.cursor == "4.x"
    await asyncio.wait({journal.append([User(content="later", id="later")])})
    assert onlooker.shown[3:] == ["later"]
    journal.close()


async def test_a_look_that_was_begun_before_does_not_end_the_doubt() -> None:
    """A turn that began then would not see what it stores, and would answer again and again."""
    store = Shared()
    store.write("known")
    journal = await opened(store)
    journal.on_lost = journal.doubt  # as a lane has it
    journal.doubt()
    store.readable, store.asked = asyncio.Event(), asyncio.Event()
    look = asyncio.create_task(journal.fresh(None))
    await asyncio.wait_for(store.asked.wait(), 10)
    readable, store.readable = store.readable, asyncio.Event()
    onlooker = Onlooker(journal, 1)
    store.write("theirs")
    store.breaks()
    readable.set()
    await asyncio.wait_for(look, 10)
    assert journal.uncertain
    store.readable.set()
    assert await onlooker.all() == ["theirs"]
    assert not journal.uncertain
    journal.close()


@pytest.mark.parametrize("before", [[], ["known"]])
async def test_more_than_the_tail_was_missed(before: list[str]) -> None:
    store = Shared()
    store.write(*before)
    journal = await opened(store)
    onlooker = Onlooker(journal, 5)
    store.write("a", "b", "c", "d", "e")
    store.tail = 2
    store.breaks()
    assert await onlooker.all() == ["a", "b", "c", "d", "e"]
    assert journal.conversation.cursor == f"{len(before) + 5}.x"
    journal.close()


@pytest.mark.parametrize("doubted", [False, True])
async def test_what_comes_behind_its_reading_is_known(doubted: bool) -> None:
    store = Shared()
    store.write("known")
    journal = await opened(store)
    onlooker = Onlooker(journal, 1)
    known: list[str | None] = []  # whenever a turn might begin
    journal.on_foreign = lambda records: known.append(journal.conversation.cursor)
    store.readable, store.asked = asyncio.Event(), asyncio.Event()
    store.breaks()
    await asyncio.wait_for(store.asked.wait(), 10)
    store.write("theirs")  # and nobody tells: whoever asks for news meanwhile is told of none
    if doubted:
        journal.doubt()  # the session is this node's now
    store.readable.set()
    assert await onlooker.all() == ["theirs"]
    assert known == (["2.x"] if doubted else ["1.x", "2.x"])
    journal.close()


async def test_what_is_erased_meanwhile_does_not_come_back() -> None:
    store = Shared()
    store.write("known")
    journal = await opened(store)
    onlooker = Onlooker(journal, 1)
    store.write("theirs")
    store.readable, store.asked = asyncio.Event(), asyncio.Event()
    store.breaks()
    await asyncio.wait_for(store.asked.wait(), 10)
    assert await journal.erase()
    store.readable.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert (onlooker.shown, journal.conversation.cursor) == ([], None)
    journal.close()


async def test_of_another_transcript_only_the_tail_is_shown() -> None:
    store = Shared()
    store.write("one", "two", "three", "four")
    journal = await opened(store)
    onlooker = Onlooker(journal, 2)
    store.records.clear()  # a fail-over took its end away, or it was deleted
    store.write("a", "b", "c")
    store.tail = 2
    store.breaks()
    assert await onlooker.all() == ["b", "c"]
    journal.close()
