"""What was said in a session, by its words: a search index beside each transcript that is asked about.

It is derived: deleted, damaged or behind, it is made again from the transcript. One database a session: no
query can reach another's. What `/new` or `/undo` hid from the model is not in it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import structlog

from gateway.agent.search_words import searchable
from session.errors import BadCursor
from session.events import Assistant, Record, System, ToolResult, User, closes
from session.ids import SessionId
from session.listing import index_path
from session.protocols import TranscriptStore

log = structlog.get_logger(__name__)

_FORMAT = 1  # of the database; any other is made anew
_BATCH = 1000  # events
_SHORT = 500  # characters of a tool's result; longer ones are rarely what somebody remembers
_OWN = frozenset({"search_transcript", "read_attachment"})  # their results are in the transcript already

_TABLES = (
    "TABLE IF NOT EXISTS place (cursor TEXT)",
    "TABLE IF NOT EXISTS messages (id TEXT PRIMARY KEY, line INTEGER)",  # that no turn has answered yet
    "VIRTUAL TABLE IF NOT EXISTS said USING fts5 (words, text UNINDEXED, who UNINDEXED, ts UNINDEXED, "
    "turn UNINDEXED, tokenize = 'unicode61 remove_diacritics 2', prefix = '3')",
)


class Found(NamedTuple):
    """One thing that was said: who by (`user`, `assistant` or a tool's name), when, and what."""

    who: str
    ts: str
    text: str


class TranscriptIndex:
    """The indexes of one store. Disk and database are worked on in threads."""

    def __init__(self, store: TranscriptStore) -> None:
        self._store = store
        self._catching_up: dict[SessionId, asyncio.Task[None]] = {}

    def refresh(self, session: SessionId) -> None:
        """Take in, in the background, what was said since; only where the session has an index."""
        if index_path(self._store.data_dir, session).exists():
            self._catch_up(session)

    async def search(
        self, session: SessionId, turn: str, queries: Iterable[str], limit: int, patience: float
    ) -> list[Found]:
        """The best matches of the first FTS5 query that has any, but none of the turn that asks.

        The index is brought up to date before, for at most `patience` seconds; where that is not enough,
        what it holds by then is searched. Raises `OSError`.
        """
        await asyncio.wait({self._catch_up(session)}, timeout=patience)
        path, wanted = index_path(self._store.data_dir, session), list(queries)
        try:
            return await asyncio.to_thread(_search, path, turn, wanted, limit)
        except sqlite3.Error as error:
            log.warning("a search index is damaged and is made again", session=session, error=str(error))
            await self._drop(session)
            await asyncio.wait({self._catch_up(session)}, timeout=patience)
            return await asyncio.to_thread(_search, path, turn, wanted, limit)

    async def stop(self) -> None:
        """Leave what is being read; the next search goes on from there."""
        for task in list(self._catching_up.values()):
            task.cancel()
            await asyncio.wait({task})

    def _catch_up(self, session: SessionId) -> asyncio.Task[None]:
        if (task := self._catching_up.get(session)) is None:
            task = self._catching_up[session] = asyncio.create_task(self._read(session))
            task.add_done_callback(lambda task: self._caught_up(session, task))
        return task

    def _caught_up(self, session: SessionId, task: asyncio.Task[None]) -> None:
        del self._catching_up[session]
        if not task.cancelled() and (error := task.exception()):
            log.warning("a transcript could not be indexed", session=session, error=str(error))

    async def _read(self, session: SessionId) -> None:
        path = index_path(self._store.data_dir, session)
        try:
            cursor = await asyncio.to_thread(_opened, path)
            await self._read_from(session, cursor)
        except (sqlite3.Error, BadCursor):
            # Damaged, or of a transcript that was deleted and begun anew.
            await self._drop(session)
            await asyncio.to_thread(_opened, path)
            await self._read_from(session, None)

    async def _read_from(self, session: SessionId, cursor: str | None) -> None:
        path = index_path(self._store.data_dir, session)
        while records := await self._store.after(session, cursor, _BATCH):
            cursor = records[-1].cursor
            await asyncio.to_thread(_take_in, path, records)
        if await self._store.end(session) is None:
            await self._drop(session)  # deleted meanwhile: nothing of it may stay on the disk

    async def _drop(self, session: SessionId) -> None:
        await asyncio.to_thread(index_path(self._store.data_dir, session).unlink, missing_ok=True)


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10)
    # Derived data: a crash may cost the index, which is then made again, but never the time of a sync.
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA journal_mode = MEMORY")
    return database


def _opened(path: Path) -> str | None:
    """Make the database where there is none; the cursor up to which it has read."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600, exist_ok=True)
    with closing(_connected(path)) as database, database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"format {version}")
        _make(database)
        database.execute(f"PRAGMA user_version = {_FORMAT}")
        place = database.execute("SELECT cursor FROM place").fetchone()
    return place[0] if place else None


def _make(database: sqlite3.Connection) -> None:
    for table in _TABLES:
        database.execute(f"CREATE {table}")


def _take_in(path: Path, records: list[Record]) -> None:
    if not path.exists():
        raise sqlite3.DatabaseError("deleted meanwhile")
    with closing(_connected(path)) as database, database:
        for record in records:
            _add(database, record)
        database.execute("DELETE FROM place")
        database.execute("INSERT INTO place VALUES (?)", (records[-1].cursor,))


def _add(database: sqlite3.Connection, record: Record) -> None:
    event = record.event
    match event:
        case User():
            line = _insert(database, event.content, "user", event.ts, None)
            if event.id is not None:
                database.execute("INSERT OR REPLACE INTO messages VALUES (?, ?)", (event.id, line))
        case Assistant() if event.content.strip():
            _insert(database, event.content, "assistant", event.ts, event.turn)
        case ToolResult(result=str(result)) if len(result) <= _SHORT and event.ok and event.name not in _OWN:
            _insert(database, result, event.name, event.ts, event.turn)
        case System(name="reset"):
            for table in ("said", "messages"):
                database.execute(f"DROP TABLE {table}")
            _make(database)
        case System(name="undo", turn=str(turn)):
            database.execute("DELETE FROM said WHERE turn = ?", (turn,))
    if (answered := closes(event)) is not None and isinstance(event, Assistant | System):
        for id in answered:
            _settle(database, id, event.turn)


def _insert(database: sqlite3.Connection, text: str, who: str, ts: str, turn: str | None) -> int | None:
    text = text.encode("utf-8", "replace").decode()  # lone surrogates
    row = (searchable(text), text, who, ts, turn)
    return database.execute("INSERT INTO said VALUES (?, ?, ?, ?, ?)", row).lastrowid


def _settle(database: sqlite3.Connection, id: str, turn: str | None) -> None:
    """From its answer on, a message belongs to a turn, and can be undone with it."""
    if found := database.execute("SELECT line FROM messages WHERE id = ?", (id,)).fetchone():
        database.execute("UPDATE said SET turn = ? WHERE rowid = ?", (turn, *found))
        database.execute("DELETE FROM messages WHERE id = ?", (id,))


def _search(path: Path, turn: str, queries: list[str], limit: int) -> list[Found]:
    if not path.exists():
        return []  # nothing was ever said, or all of it was deleted
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as database:
        for query in queries:
            if found := list(_matches(database, query, turn, limit)):
                return found
    return []


def _matches(database: sqlite3.Connection, query: str, turn: str, limit: int) -> Iterator[Found]:
    matching = (
        "SELECT who, ts, text FROM said WHERE said MATCH ? AND turn IS NOT ? "
        "AND rowid NOT IN (SELECT line FROM messages) ORDER BY rank LIMIT ?"
    )
    for row in database.execute(matching, (query, turn, limit)):
        yield Found(*row)
