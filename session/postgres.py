"""All transcripts in a PostgreSQL database, for any number of gateways at once.

What is on disk, and in which order, is PostgreSQL's work. A session's turns are run by the node that holds
its lease: the row's owner and epoch, compared in the statement that stores what a turn says. So a node that
was paused, and comes back behind another one, stores nothing; no clock is asked for that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from session import archive, listing, postgres_schema
from session.errors import StorageError
from session.events import Event, Record
from session.ids import SessionId
from session.listing import Entry
from session.lock import DirectoryLock
from session.postgres_database import Database
from session.postgres_desks import Desks
from session.postgres_doubts import Doubts
from session.postgres_leases import Leases
from session.postgres_reading import Reader, id_of, key_of
from session.postgres_state import Duty, State
from session.postgres_wire import Beat, Wire
from session.protocols import NOTICE_BYTES, Following, Node

_NO_ARCHIVE = "not supported: the database keeps all sessions alike, and compresses long lines by itself"


class PostgresStore:
    """The `session.protocols.SharedStore`. Without a `name` it is no node: it reads, deletes, and notes.

    `connections`: how many statements at most are under way at once.
    """

    def __init__(self, url: str, data_dir: Path, name: str | None, *, connections: int = 10) -> None:
        self.data_dir = data_dir
        self.name = name
        self.fault: str | None = None
        self.repaired: list[str] = []  # nothing is ever torn here
        self.salvaged: list[str] = []
        self.warnings: list[str] = []
        # What is set by whoever uses the store, before `open`.
        self.timed: Callable[[list[float], float | None], None] = lambda appends, answer: None
        self.room: Callable[[], int] = lambda: 0
        self.woken: Callable[[SessionId], None] = lambda session: None
        self.taken: Callable[[SessionId], None] = lambda session: None
        self.deposed: Callable[[list[SessionId]], None] = lambda sessions: None
        self.heard: Callable[[int, str], None] = lambda node, payload: None
        self.lost: Callable[[], None] = lambda: None
        self._database = Database(url, f"lunar {name or 'reader'}", connections)
        self._reader = Reader(self._database)
        self._wire = Wire(self._database, name or "")
        self._leases = Leases(self._database, lambda: self.node)
        self._doubts = Doubts(self._leases)
        self._desks = Desks(self._database, self._reader, self._leases, self._doubts, lambda: self.node)
        self._desks.closing = name is None  # who is no node takes no lease
        self._lock = DirectoryLock(data_dir)
        self._running: asyncio.Task[None] | None = None
        self._listen()

    def _listen(self) -> None:
        self._wire.room = lambda: 0 if self._desks.closing else self.room()
        self._wire.on_beat = self._on_beat
        self._wire.on_owned = self._doubts.compare
        self._wire.heard = self._on_heard
        self._wire.back = self._on_back
        self._wire.away = self._on_failed
        self._leases.taken = lambda session: self.taken(session)
        self._leases.deposed = lambda sessions: self.deposed(sessions)
        self._doubts.woken = lambda session: self.woken(session)
        self._desks.wrote = self._on_wrote
        self._desks.done = self._on_done
        self._desks.failed = self._on_failed

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the directory's lock, connect, bring the schema up to date, become a node.

        Raises `StoreLocked`, `OSError` (the directory), `StoreUnfit`, `StorageError`.
        """
        if self.name is not None:
            archive.make_folder(self.data_dir)
            self._lock.acquire()
        try:
            await self._database.open()
            await postgres_schema.prepare(self._database)
            self.warnings = await postgres_schema.warnings(self._database)
            if self.name is not None:
                await self._wire.open()
        except BaseException:
            await self._wire.close()
            await self._database.close()
            self._lock.release()
            raise
        self._database.begun = True
        if self.name is not None:
            self._running = asyncio.create_task(self._wire.run(), name="postgres")

    async def close(self) -> None:
        """Wait for what is being stored, give every lease back, tell the others, and end."""
        self._desks.closing = self._doubts.closing = True
        await self._desks.quiet()
        await self._doubts.quiet()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            try:
                await self._database.row("select lunar.leave($1)", self.node)
            except StorageError:
                pass  # then the others declare it dead
            self._wire.send(None, "left", "")
        await self._wire.close()
        await self._database.close()
        self._lock.release()

    @property
    def node(self) -> int:
        """This process's incarnation; 0 where it is no node."""
        return self._wire.node

    @property
    def skipped(self) -> set[tuple[str, int]]:
        """Name and number of lines that are no events, for the log."""
        return self._reader.skipped

    def maybe_open(self) -> list[SessionId]:
        """None: what is open and nobody's comes by `woken`, as much as there is room for."""
        return []

    # -- writing ---------------------------------------------------------------------------------

    def append(
        self, session: SessionId, batch: list[Event], *, sync: bool = True, leased: bool = False
    ) -> asyncio.Future[list[Record]]:
        """Store the events behind all earlier ones (`TranscriptStore.append`).

        Synced in any case: what a server forgets after others have read it would part the nodes' histories.
        """
        return self._desks.append(session, batch, sync, leased)

    async def claim(self, session: SessionId) -> bool:
        """Whether this process runs the session's turns, from now on if nobody else does."""
        return await self._desks.claim(session)

    async def settle(self, session: SessionId) -> None:
        """Nothing is open; the lease is given back."""
        await self._leases.settle(session)

    async def release(self, session: SessionId) -> None:
        """The lease is given back; what is open is for whoever takes it."""
        await self._desks.release(session)

    def follow(
        self,
        session: SessionId,
        after: str | None,
        on_foreign: Callable[[list[Record]], None],
        on_broken: Callable[[], None],
    ) -> Following:
        """Hand over what others store (`TranscriptStore.follow`)."""
        return self._desks.follow(session, after, on_foreign, on_broken)

    async def delete(self, session: SessionId) -> bool:
        """Remove a session for good, and this node's files that belong to it; False where there is none."""
        ids = await asyncio.shield(self._desks.delete(session))
        said = {id.decode("utf-8", "replace") for id in ids or ()}
        await asyncio.to_thread(listing.remove_derived, self.data_dir, session, said)
        return ids is not None

    async def archive(self, session: SessionId) -> str | None:
        """Say that nothing is ever archived here."""
        return _NO_ARCHIVE

    async def tidy_archive(self) -> list[str]:
        """There is none."""
        return []

    async def probe(self) -> None:
        """Write a little and wait for the disk; clears or sets `fault`."""
        try:
            await self._database.row(
                "insert into lunar.probe values ($1, now()) on conflict (node) do update set at = now()",
                self.node,
            )
        except StorageError as error:
            self.fault = str(error)
        else:
            self.fault = None

    # -- reading ---------------------------------------------------------------------------------

    async def end(self, session: SessionId) -> str | None:
        """The cursor after the last event; None where nothing was said yet."""
        return await self._reader.end(session)

    async def recent(self, session: SessionId, enough: Callable[[Record], bool]) -> list[Record]:
        """Events from the end back to the first one of which `enough` is true, oldest first."""
        await self._doubts.end(session)
        return await self._reader.recent(session, enough)

    async def after(
        self, session: SessionId, cursor: str | None, limit: int, until: str | None = None
    ) -> list[Record]:
        """Up to `limit` events behind the cursor and not behind `until`; raises `BadCursor`."""
        return await self._reader.after(session, cursor, limit, until)

    async def before(self, session: SessionId, cursor: str | None, limit: int) -> list[Record]:
        """Up to `limit` events, the newest of them the one that ends at the cursor; raises `BadCursor`."""
        return await self._reader.before(session, cursor, limit)

    async def listing(self) -> list[Entry]:
        """Every session, latest first."""
        return await self._reader.listing()

    def blocks(self, session: SessionId) -> AsyncIterator[bytes]:
        """The whole lines of a session as they are stored, in blocks that end with a line."""
        return self._reader.blocks(session)

    # -- the other nodes -------------------------------------------------------------------------

    def notify(self, node: int | None, payload: str) -> None:
        """Send a notice to one node, or to all others (None)."""
        if not payload.isascii() or len(payload) > NOTICE_BYTES or "\0" in payload:
            raise ValueError(f"a notice is ASCII of at most {NOTICE_BYTES} characters, without NUL")
        self._wire.send(node, "notice", payload)

    def holds(self, session: SessionId) -> bool:
        """Whether this process runs the session's turns, as far as it knows."""
        return self._leases.holds(session)

    async def owner(self, session: SessionId) -> int | None:
        """The living node that runs the session's turns."""
        rows = await self._database.rows(
            "select s.owner from lunar.session s join lunar.node n on n.id = s.owner and not n.dead"
            " where s.name = $1",
            key_of(session),
        )
        return rows[0]["owner"] if rows else None

    async def nodes(self) -> list[Node]:
        """Those that live, this one included, by id."""
        rows = await self._database.rows(
            "select id, name, extract(epoch from clock_timestamp() - beat)::float8 as age"
            " from lunar.node where not dead order by id"
        )
        return [Node(row["id"], row["name"], row["age"]) for row in rows]

    def state(self) -> State:
        """What channels keep for all nodes."""
        return State(self._database)

    def duty(self) -> Duty:
        """The work of channels that one node does for all."""
        return Duty(self._database, self.name or "")

    # -- what happens ----------------------------------------------------------------------------

    def _on_done(self, appends: list[float], answer: float) -> None:
        self.fault = None
        self.timed(appends, answer)

    def _on_failed(self, why: str) -> None:
        self.fault = why

    def _on_wrote(self, session: SessionId, owner: int) -> None:
        named = json.dumps(session)
        if len(named) <= NOTICE_BYTES:  # else the owner finds it at its next beat
            self._wire.send(owner, "wake", named)

    def _on_beat(self, beat: Beat) -> None:
        if not beat.alive:
            self._leases.drop(*self._leases.desks)
            self.lost()  # what others say to the node that this one was, nobody hears
        for raw in beat.woken:
            self.woken(id_of(raw))
        for raw, epoch in beat.taken:
            session = id_of(raw)
            self._leases.take_anew(session, epoch)
            asyncio.get_running_loop().call_soon(self.woken, session)

    def _on_heard(self, node: int, kind: str, text: str) -> None:
        match kind:
            case "notice":
                self.heard(node, text)
            case "wake":
                self.woken(SessionId(json.loads(text)))
            case "left":
                self._wire.beat_now()

    def _on_back(self, moved: bool) -> None:
        if moved:
            self._desks.break_all()
        self.lost()
