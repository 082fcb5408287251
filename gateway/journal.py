"""One session's transcript, what is known of it, and who is watching: kept in step."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import structlog

from channels.base import Done, Stored
from channels.errors import Refused
from gateway.feed import Feed
from session import events
from session.conversation import Attempt, Conversation, tail
from session.errors import BadCursor, LeaseLost, Repeated, StorageError
from session.events import Assistant, Event, Record, System, closes
from session.ids import SessionId
from session.protocols import Following, TranscriptStore

log = structlog.get_logger(__name__)

_AGAIN = 1.0  # seconds until a transcript that could not be read is tried again
_DOUBTED = 64  # lines of appends whose answer was lost that are remembered


class Journal:
    """What is appended is applied to the conversation and shown to the watchers when it is on disk.

    `shared`: other nodes may store something too; it comes in by the same way, in the transcript's order.
    """

    def __init__(
        self,
        session: SessionId,
        store: TranscriptStore,
        history_turns: int,
        *,
        push: bool,
        count: Callable[[Event], None] = lambda event: None,
        shared: bool = False,
    ) -> None:
        self.session = session
        self.shared = shared
        self.on_foreign: Callable[[list[Record]], None] = _nobody  # set by the lane
        self.on_lost: Callable[[], None] = _nobody  # set by the lane: it may not run the turns any more
        self._count = count  # told of every event that this process stored
        self.feed = Feed()
        self.conversation = Conversation(history_turns, push=push)
        self._history_turns = history_turns
        self._push = push
        self._store = store
        self._last: asyncio.Future[list[Record]] | None = None  # the newest append
        self._under_way: set[asyncio.Future[list[Record]]] = set()  # appends that are not taken in yet
        self._stale = False  # set by a failed append: the file is read again before the next one
        self._doubts = 0
        self._following: Following | None = None  # where `shared`, from `open` to `close`
        self._reopening: asyncio.Task[None] | None = None
        # Lines that a turn has asked to store, and nobody knows whether they are; true once they were met.
        self._doubted: dict[bytes, bool] = {}

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the transcript's tail; raises `StorageError` or `OSError`."""
        self.conversation = _folded(await self._tail(), self._history_turns, push=self._push)
        self._follow()

    async def _tail(self) -> list[Record]:
        return await self._store.recent(self.session, tail(self._history_turns))

    def _follow(self) -> None:
        if self.shared:
            cursor = self.conversation.cursor
            self._following = self._store.follow(self.session, cursor, self._foreign, self._broken)

    def close(self) -> None:
        """Hear no more of what other nodes store, and tell the lane of nothing."""
        self.on_foreign, self.on_lost = _nobody, _nobody
        if self._reopening is not None:
            self._reopening.cancel()
        if self._following is not None:
            self._following.close()
            self._following = None

    def remember(self, history_turns: int) -> None:
        """See so many earlier messages, from the next turn on."""
        if history_turns != self._history_turns:
            self._history_turns = history_turns
            self._stale = True

    # -- what is stored --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether an append is under way."""
        return bool(self._under_way)

    def append(
        self, batch: Sequence[Event], *, sync: bool = True, leased: bool = False
    ) -> asyncio.Future[list[Record]]:
        """Store the events (`TranscriptStore.append`); whoever waits for it must shield it."""
        # What is stored is applied and shown by the callback, also when the caller was cancelled meanwhile.
        stamped = [events.stamped(event) for event in batch]
        self._last = stored = self._store.append(self.session, stamped, sync=sync, leased=leased)
        stored.add_done_callback(partial(self._stored, stamped if leased and self.shared else ()))
        self._under_way.add(stored)
        return stored

    def _stored(self, batch: Sequence[Event], stored: asyncio.Future[list[Record]]) -> None:
        self._under_way.discard(stored)
        match stored.exception():
            case None:
                for record in stored.result():
                    self._count(record.event)
                    if not self._parted:
                        self._take(record)
            case Repeated():
                return
            case LeaseLost():
                self._stale = True
                self.on_lost()
            case _:
                self._stale = True
                for event in batch:
                    self._doubted.setdefault(_line(event), False)
                while len(self._doubted) > _DOUBTED:
                    del self._doubted[next(iter(self._doubted))]

    def _foreign(self, records: list[Record]) -> None:
        """Another node stored this, or we did and never heard of it."""
        self._tell(records)
        self.on_foreign(records)

    def _tell(self, records: list[Record]) -> None:
        for record in records:
            self._meet(record)
            self._take(record)

    def _meet(self, record: Record) -> None:
        if record.line in self._doubted:
            self._doubted[record.line] = True

    def _take(self, record: Record) -> None:
        self.conversation.apply(record)
        self._show(record)

    def _show(self, record: Record) -> None:
        self.feed.publish(Stored(record))
        if closes(record.event) is not None:
            self.feed.publish(_done(record))

    def told(self, batch: Sequence[Event]) -> bool:
        """Whether a turn's stamped events, whose append failed, were stored all the same."""
        return self.shared and all(self._doubted.get(_line(event), False) for event in batch)

    async def catch_up(self) -> bool:
        """Wait until all that other nodes stored so far is known here; false where it cannot be read now."""
        return self._following is None or await asyncio.shield(self._following.catch_up())

    async def still_ours(self) -> None:
        """Where an append is in doubt, let nothing of it be under way; raises `LeaseLost`, `StorageError`."""
        if self.uncertain and not await self._store.claim(self.session):
            raise LeaseLost("another node runs this session's turns")

    @property
    def uncertain(self) -> bool:
        """Whether nobody knows yet what became of an append: until then, it must not be made again."""
        return self.shared and self._stale

    def doubt(self) -> None:
        """What is known here may not be what is stored."""
        self._stale = True
        self._doubts += 1

    async def fresh(self, running: Attempt | None) -> None:
        """After a failed append, look at what the file really holds; `running` goes on where it is open."""
        while self._stale:
            await self.quiet()  # what is under way is either read here or applied later, not both
            if not await self.catch_up():
                return  # what was not met could not be told from what is not stored
            last, cursor = self._last, self.conversation.cursor
            try:
                tail = await self._tail()
            except (StorageError, OSError):
                return
            if self._parted:
                return  # it is read anew meanwhile: until that is over, nothing of ours is taken in
            if self._last is not last or self.conversation.cursor != cursor:
                continue  # something was stored while the file was read: this look at it is too old
            if self.shared:
                tail = _until(tail, cursor)  # what is behind it is still to be handed over, and shown
            fresh = _folded(tail, self._history_turns, push=self._push)
            if running and any(id in fresh.open for id in running.messages):
                fresh.begin(running)
            self.conversation, self._stale = fresh, False

    async def known(self, wanted: Callable[[], bool]) -> None:
        """Before a turn begins: where another node may have run the last one, see what that one has done."""
        while self.uncertain and wanted():
            await self.fresh(None)
            if self.uncertain:
                await asyncio.sleep(_AGAIN)

    async def quiet(self) -> None:
        """Wait until no append is under way, and all that was stored is known here."""
        while self._under_way:  # a refused one may be over before one that was asked for earlier
            await asyncio.wait(self._under_way)  # comes back behind `_stored`, also of those that are done

    # -- the end of a transcript -----------------------------------------------------------------

    async def erase(self) -> bool:
        """Remove the transcript for good and begin with nothing; False where there was none."""
        if self._reopening is not None:
            self._reopening.cancel()
        if self._following is not None:
            self._following.close()
        try:
            found = await self._store.delete(self.session)
        except BaseException:
            self._follow()
            self.doubt()  # it may be gone all the same
            await self.fresh(None)
            if (shown := self.feed.running) and not self.conversation.open:
                self.feed.publish(Done(shown.turn, "stopped", self.conversation.cursor or ""))
            raise
        self._begin_anew([], [])
        return found

    def _begin_anew(self, missed: list[Record], tail: list[Record]) -> None:
        before = self.conversation.cursor
        known = _until(tail, before)
        self.conversation = _folded(known, self._history_turns, push=self._push)
        self._stale = False
        for record in missed:  # too old for the conversation, but nobody who watches has seen it
            self._meet(record)
            self._show(record)
        self._tell(tail[len(known) :])
        self._follow()
        shown, running = self.feed.running, self.conversation.running
        if shown and (running is None or running.turn != shown.turn):
            self.feed.publish(Done(shown.turn, "stopped", before or ""))

    def _broken(self) -> None:
        """The transcript is another one now: it was deleted elsewhere, or the database lost its end."""
        self.on_lost()
        if not self._parted:
            self._reopening = asyncio.create_task(self._reopen(), name=f"read {self.session} anew")

    @property
    def _parted(self) -> bool:
        """Whether the transcript is being read anew: what others stored before ours comes first."""
        return self._reopening is not None and not self._reopening.done()

    async def _reopen(self) -> None:
        while True:
            await self.quiet()
            last, doubts = self._last, self._doubts
            try:
                tail = await self._tail()
                missed = await self._missed(tail)
            except (StorageError, OSError) as error:
                log.warning("a transcript cannot be read anew", session=self.session, error=str(error))
                await asyncio.sleep(_AGAIN)
                continue
            if self._last is last and self._doubts == doubts:
                break
        self._begin_anew(missed, tail)
        self.on_foreign([])
        if self._following is not None:
            self._following.catch_up()  # nobody has heard of what was stored since it was read

    async def _missed(self, tail: list[Record]) -> list[Record]:
        """What is stored between what is known here and the tail."""
        known = self.conversation.cursor
        if not tail or _until(tail, known):
            return []
        try:
            found = await self._store.after(self.session, known, sys.maxsize, until=tail[0].cursor)
        except BadCursor:
            return []  # the transcript is another one: nothing of it follows what is known
        return found[:-1]


def _nobody(*_: object) -> None:
    """Whoever hears what nobody is there to hear."""


def _line(event: Event) -> bytes:
    return events.encode(event)[:-1]


def _folded(records: list[Record], history_turns: int, *, push: bool) -> Conversation:
    conversation = Conversation(history_turns, push=push)
    for record in records:
        conversation.apply(record)
    return conversation


def _until(records: list[Record], cursor: str | None) -> list[Record]:
    """Those up to the one that ends at the cursor."""
    place = next((number for number, record in enumerate(records) if record.cursor == cursor), -1)
    return records[: place + 1]


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
