"""A transcript is read anew, after a fail-over, while this node goes on storing: all is shown, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from channels.base import Stored, Update
from gateway.journal import Journal
from session import events
from session.events import Event, Record, User
from session.ids import SessionId
from session.protocols import TranscriptStore


class Shared:
    """A store that others write to as well; it is read once `readable` is set."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.readable = asyncio.Event()
        self.readable.set()
        self.breaks: Callable[[], None] = lambda: None

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
        await self.readable.wait()
        return list(self.records)

    def follow(self, session: SessionId, after: str | None, on_foreign: Any, on_broken: Any) -> Any:
        self.breaks = on_broken
        return self

    def close(self) -> None:
        pass


async def test_what_is_stored_while_it_is_read_comes_behind_what_others_stored_before() -> None:
    store, shown, all_shown = Shared(), list[str](), asyncio.Event()
    store.write("known")
    place = SessionId("agent:main:cli:work")
    journal = Journal(place, cast(TranscriptStore, store), 20, push=False, shared=True)
    await journal.open()

    def update(update: Update) -> None:
        if isinstance(update, Stored) and isinstance(update.record.event, User):
            shown.append(update.record.event.id or "")
            if len(shown) == 3:
                all_shown.set()

    journal.feed.watch(update, journal.conversation.cursor)
    store.write("theirs", "theirs too")
    store.readable.clear()
    store.breaks()
    await asyncio.wait({journal.append([User(content="ours", id="ours")])})
    assert shown == []  # a client that goes on from there would never see what is before it
    assert journal.conversation.cursor == "1.x"
    store.readable.set()
    await asyncio.wait_for(all_shown.wait(), 10)
    assert shown == ["theirs", "theirs too", "ours"]
    assert journal.conversation.cursor == "4.x"
    await asyncio.wait({journal.append([User(content="later", id="later")])})
    assert shown[3:] == ["later"]
    journal.close()
