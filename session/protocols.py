"""What the gateway asks of a store of transcripts, and what of one that several gateways share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from session.events import Event, Record
from session.ids import SessionId
from session.listing import Entry

if TYPE_CHECKING:
    from session.postgres_state import Duty, State

NOTICE_BYTES = 7_900  # of one notice, as UTF-8: PostgreSQL takes less than 8,000


class Node(NamedTuple):
    """A gateway that lives: `id` is of this incarnation alone; `age`: seconds since its last beat."""

    id: int
    name: str
    age: float


class Following(Protocol):
    """A session's reader that is kept up to date with what other nodes store."""

    def catch_up(self) -> asyncio.Future[bool]:
        """Look for what is new now; true when all that was stored before the call was handed over.

        Never raises: false where the store cannot be read, or this is over; a later append or look brings it.
        Cancelling it changes nothing.
        """

    def close(self) -> None:
        """Hand over nothing any more; calling it again does nothing."""


class TranscriptStore(Protocol):
    """Every session's transcript: append, read, list, and who may run a session's turns.

    All is for one event loop. A cursor is an opaque string, valid wherever the same store is opened.
    """

    data_dir: Path  # this gateway's own folder, whose lock it holds: media, search indexes, sockets
    fault: str | None  # why nothing can be stored just now
    # Told how many seconds each of some appends took, and the disk's (or the database's) part of it.
    timed: Callable[[list[float], float | None], None]

    @property
    def skipped(self) -> set[tuple[str, int]]:
        """Name and place of lines that are no events, for the log."""

    @property
    def repaired(self) -> list[str]:
        """The names of transcripts whose torn tail was cut off, for the log."""

    @property
    def salvaged(self) -> list[str]:
        """The names of transcripts that a damaged archive gave back in part, for the log."""

    async def open(self) -> None:
        """Take the data directory's lock and make everything ready.

        Raises `StoreLocked`; `OSError` where the directory cannot be used; `StoreUnfit` where a person must
        change something (address, password, rights, version); `StorageError` where trying again may help.
        """

    async def close(self) -> None:
        """Wait for what is being stored, give every lease back, tell the other nodes, let go of the lock."""

    def maybe_open(self) -> list[SessionId]:
        """The sessions in which something may be open: all that a start has to look at.

        Empty for a shared store, whose open sessions come by `woken`.
        """

    # -- writing ---------------------------------------------------------------------------------

    def append(
        self, session: SessionId, batch: list[Event], *, sync: bool = True, leased: bool = False
    ) -> asyncio.Future[list[Record]]:
        """Store the events behind all earlier ones; the result comes when they are on disk.

        Appends of one session are stored in the order of the calls. With `sync=False` the result may come
        when they are written, and a power failure may lose them. `leased`: only this process's right to run
        the session's turns lets them in. Not leased: taken on every node, and where nobody runs the
        session's turns, this process does from now on.

        The future raises `BadEvent` (one of them is no JSON), `LeaseLost`, `Repeated` (an event of the same
        `id` was stored by an earlier append; a store of files does not look): then none of the batch is
        stored. `StorageError`: a store of files has none of it; of a shared one nobody knows, and if it was
        stored all the same, it comes by `follow`.
        """

    async def claim(self, session: SessionId) -> bool:
        """Whether this process runs the session's turns; takes that over where nobody who lives does.

        True at once where it is held already, as far as is known here. Where it is taken, all that is stored
        was handed over to whoever follows before this returns. False too where nothing is stored. Raises
        `StorageError`; if it was taken all the same, that is found out, and comes by `woken`.
        """

    async def settle(self, session: SessionId) -> None:
        """Say that the session has nothing open, and that this process runs its turns no longer.

        Changes nothing where something came that was not handed over yet. Never raises `StorageError`:
        what could not be said is found by whoever looks at open sessions.
        """

    async def release(self, session: SessionId) -> None:
        """Let another node run the session's turns, also the open ones; a file store has no other.

        Never raises `StorageError`.
        """

    def follow(
        self,
        session: SessionId,
        after: str | None,
        on_foreign: Callable[[list[Record]], None],
        on_broken: Callable[[], None],
    ) -> Following:
        """Hand over what others store behind the cursor `after` (None: from the first event), as it is met.

        `after` is the cursor of the last record that the caller has, from `recent` or an append. Each record
        that did not come by an append of this process is handed over once, in order, and in step with the
        futures of `append`: a foreign record before ours comes before our future's callbacks.
        Nothing is looked for by itself: an append or `claim` that meets something new brings it, and
        `Following.catch_up` does, which is due after a notice.

        `on_broken`: what was handed over is no longer what is stored (the session was deleted, or a fail-over
        took its end away). The following is over then: read anew with `recent` and follow again.
        One follower a session; a second one ends the first.
        """

    async def delete(self, session: SessionId) -> bool:
        """Remove a transcript and its files of this node for good; False where there is none."""

    async def archive(self, session: SessionId) -> str | None:
        """Compress a transcript until somebody speaks again, or say why not; raises `OSError`."""

    async def tidy_archive(self) -> list[str]:
        """Remove archives that a crash left beside their transcripts; the names of those that differ."""

    async def probe(self) -> None:
        """Write a little and wait for the disk; clears or sets `fault`."""

    # -- reading: each raises `StorageError` or another `OSError` where it is not possible now ---------

    async def end(self, session: SessionId) -> str | None:
        """The cursor after the last event; None where nothing was said yet."""

    async def recent(self, session: SessionId, enough: Callable[[Record], bool]) -> list[Record]:
        """Events from the end back to the first one of which `enough` is true, oldest first."""

    async def after(
        self, session: SessionId, cursor: str | None, limit: int, until: str | None = None
    ) -> list[Record]:
        """Up to `limit` events behind the cursor and not behind `until`; raises `BadCursor`."""

    async def before(self, session: SessionId, cursor: str | None, limit: int) -> list[Record]:
        """Up to `limit` events, the newest of them the one that ends at the cursor; raises `BadCursor`."""

    async def listing(self) -> list[Entry]:
        """Every session, latest first."""

    def blocks(self, session: SessionId) -> AsyncIterator[bytes]:
        """The whole lines of a session as they are stored, in blocks that end with a line.

        Nothing is checked. Nothing comes where there is no such session.
        """


class SharedStore(TranscriptStore, Protocol):
    """A store behind several gateways; each of the attributes is set once, before `open`."""

    name: str | None  # this node's, for people
    warnings: list[str]  # what in the server's settings endangers what is acknowledged, for the log

    # Asked at each beat how many abandoned sessions this node takes over now: 0 until it is ready, and when
    # it drains.
    room: Callable[[], int]
    # There is something to do in this session, whose turns this process runs: another node stored something,
    # or its owner died or let go. May come for nothing, and for one whose lane is not in memory.
    woken: Callable[[SessionId], None]
    # This process runs the session's turns from now on (by `claim`, an append, or just before `woken`).
    taken: Callable[[SessionId], None]
    # This process runs these sessions' turns no longer: it was declared dead, or found a lease gone.
    deposed: Callable[[list[SessionId]], None]
    # A notice that another node sent, and that node's id.
    heard: Callable[[int, str], None]
    # Notices to or from this node may have been lost; called when they come again.
    lost: Callable[[], None]

    @property
    def node(self) -> int:
        """This process's incarnation; another one after `deposed`."""

    def notify(self, node: int | None, payload: str) -> None:
        """Send a notice to one node, or to all others (None): ASCII without NUL, up to `NOTICE_BYTES`.

        Those of one process come in order, or not at all: what cannot be sent now is dropped, and `lost` is
        called when the connection is back. Its own notices do not come back to a process.
        """

    def holds(self, session: SessionId) -> bool:
        """Whether this process runs the session's turns, as far as it knows."""

    async def owner(self, session: SessionId) -> int | None:
        """The living node that runs the session's turns; raises `StorageError`."""

    async def nodes(self) -> list[Node]:
        """Those that live, this one included, by id; raises `StorageError`."""

    def state(self) -> State:
        """What channels keep for all nodes."""

    def duty(self) -> Duty:
        """The work of channels that one node does for all."""
