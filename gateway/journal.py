"""One session's transcript, what is known of it, and who is watching: kept in step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import structlog

from channels.base import Done, Stored
from channels.errors import Refused
from gateway.feed import Feed
from session import events
from session.conversation import Attempt, Conversation, tail
from session.errors import StorageError
from session.events import Assistant, Event, Record, System, closes
from session.ids import SessionId
from session.store import Store

log = structlog.get_logger(__name__)


class Journal:
    """What is appended is applied to the conversation and shown to the watchers when it is on disk."""

    def __init__(
        self,
        session: SessionId,
        store: Store,
        history_turns: int,
        *,
        push: bool,
        count: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.session = session
        self._count = count  # told of every event that this process stored
        self.feed = Feed()
        self.conversation = Conversation(history_turns, push=push)
        self._history_turns = history_turns
        self._push = push
        self._store = store
        self._last: asyncio.Future[list[Record]] | None = None  # the newest append
        self._applied: asyncio.Future[list[Record]] | None = None  # the newest one that was taken in
        self._stale = False  # set by a failed append: the file is read again before the next one

    async def open(self) -> None:
        """Read the transcript's tail; raises `StorageError` or `OSError`."""
        self.conversation = await self._folded()

    async def _folded(self) -> Conversation:
        conversation = Conversation(self._history_turns, push=self._push)
        for record in await self._store.recent(self.session, tail(self._history_turns)):
            conversation.apply(record)
        return conversation

    def remember(self, history_turns: int) -> None:
        """See so many earlier messages, from the next turn on."""
        if history_turns != self._history_turns:
            self._history_turns = history_turns
            self._stale = True

    @property
    def busy(self) -> bool:
        """Whether an append is under way."""
        return self._last is not self._applied

    def append(self, batch: Sequence[Event], *, sync: bool = True) -> asyncio.Future[list[Record]]:
        """Store the events; whoever waits for it must shield it."""
        # What is stored is applied and shown by the callback, also when the caller was cancelled meanwhile.
        stored = self._store.append(self.session, [events.stamped(event) for event in batch], sync=sync)
        stored.add_done_callback(self._stored)
        self._last = stored
        return stored

    def _stored(self, stored: asyncio.Future[list[Record]]) -> None:
        self._applied = stored
        if stored.exception() is not None:
            self._stale = True
            return
        for record in stored.result():
            self.conversation.apply(record)
            self._count(record.event)
            self.feed.publish(Stored(record))
            if closes(record.event) is not None:
                self.feed.publish(_done(record))

    async def fresh(self, running: Attempt | None) -> None:
        """After a failed append, look at what the file really holds; `running` goes on where it is open."""
        while self._stale:
            await self.quiet()  # what is under way is either read here or applied later, not both
            last = self._last
            try:
                fresh = await self._folded()
            except (StorageError, OSError):
                return
            if self._last is not last:
                continue  # something was stored while the file was read: this look at it is too old
            if running and any(id in fresh.open for id in running.messages):
                fresh.begin(running)
            self.conversation, self._stale = fresh, False

    async def quiet(self) -> None:
        """Wait until no append is under way, and all that was stored is known here."""
        while (last := self._last) is not None and last is not self._applied:
            await asyncio.wait({last})  # comes back behind `_stored`, also of one that is done

    async def erase(self) -> bool:
        """Remove the transcript for good and begin with nothing; False where there was none."""
        found = await self._store.delete(self.session)
        if broken_off := self.feed.running:
            self.feed.publish(Done(broken_off.turn, "stopped", self.conversation.cursor or ""))
        self.conversation = Conversation(self._history_turns, push=self._push)
        self._stale = False
        return found


def _done(record: Record) -> Done:
    event = record.event
    outcome: Literal["completed", "stopped", "failed"] = "completed"
    if isinstance(event, System):
        outcome = "failed"
    elif isinstance(event, Assistant) and event.finish == "stopped":
        outcome = "stopped"
    return Done(getattr(event, "turn", None) or "", outcome, record.cursor)


@contextmanager
def readable(session: SessionId) -> Iterator[None]:
    """A transcript that the disk does not give is no defect of ours: people are told to try again."""
    try:
        yield
    except OSError as error:
        log.warning("a transcript cannot be read", session=session, error=str(error))
        raise Refused(
            "storage_unavailable", "The gateway cannot read its transcripts just now. Please try again soon."
        ) from error
