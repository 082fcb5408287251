"""Transcripts in the database that several gateways share, for commands, which wait for each answer."""

from __future__ import annotations

import asyncio
import atexit
import errno
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gateway.verbs.sessions.growing import BEGUN_ANEW
from gateway.verbs.sessions.source import Growing, Rest
from session import ids
from session import postgres_database as postgres
from session.errors import DamagedArchive, StorageError, StoreUnfit
from session.events import Record
from session.ids import SessionId
from session.incoming import Incoming
from session.listing import Entry
from session.postgres_import import take_in
from session.postgres_reading import Page, Reader, id_of, key_of
from session.postgres_schema import prepare
from session.transcript import Transcript

T = TypeVar("T")

_PAGE = 256  # lines
_SOME = 20_000  # sessions
_ENTRIES = (
    "select key, id, bytes, extract(epoch from modified)::float8 from lunar.session"
    " where key > $1 order by key limit $2"
)
_KEPT = (
    "select s.seq, s.bytes, count(e.seq), coalesce(sum(octet_length(e.line) + 1), 0), coalesce(max(e.seq), 0)"
    " from lunar.session s left join lunar.event e on e.session = s.key where s.name = $1 group by s.key"
)


class Connected:
    """One connection, and the loop that it lives in."""

    def __init__(self, url: str) -> None:
        self.database = postgres.Database(url, "lunar command", 1)
        self.reader = Reader(self.database)
        self._runner = asyncio.Runner()
        try:
            self.run(self._open())
        except BaseException as error:
            self.close()
            if isinstance(error, StoreUnfit):
                raise StorageError(str(error)) from error
            raise

    async def _open(self) -> None:
        await self.database.open()
        await prepare(self.database)

    def close(self) -> None:
        """End the connection, and the loop."""
        self._runner.run(self.database.close())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of it; raises `StorageError`."""
        return self._runner.run(work)

    def blocks(self, session: SessionId) -> Iterator[bytes]:
        """The whole lines of a session, in blocks that end with a line; none where there is none."""
        pieces: AsyncIterator[bytes] = self.reader.blocks(session)
        while (block := self.run(_next(pieces))) is not None:
            yield block

    def rows(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of a statement that only reads."""
        return self.run(self.database.rows(statement, *arguments))


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


@cache
def _connected(url: str, process: int) -> Connected:
    connected = Connected(url)
    atexit.register(connected.close)
    return connected


class Database(NamedTuple):
    """A `Source`; each process that has it connects by itself."""

    url: str

    @property
    def connected(self) -> Connected:
        """This process's connection; raises `StorageError`, whose words name no password."""
        return _connected(self.url, os.getpid())

    @property
    def place(self) -> str:
        return self.connected.database.place

    def entries(self) -> Iterator[Entry]:
        last = 0
        while found := self.connected.rows(_ENTRIES, last, _SOME):
            yield from (Entry(id_of(id), size, modified) for _, id, size, modified in found)
            last = found[-1][0]

    def holds(self, session: SessionId) -> bool:
        return bool(self.connected.rows("select from lunar.session where name = $1", key_of(session)))

    def opened(self, session: SessionId) -> tuple[Transcript, DamagedArchive | None]:
        path = Path(ids.file_name(session))  # which is looked at by nobody
        return Transcript(path, writable=False, content=self.blocks(session)), None

    def blocks(self, session: SessionId, rest: Rest | None = None) -> Iterator[bytes]:
        found = False
        for block in self.connected.blocks(session):
            found = True
            yield block
        if not found:
            raise FileNotFoundError(errno.ENOENT, "there is no such session in the database", session)

    def doubt(self, session: SessionId) -> str | None:
        for seq, size, lines, length, last in self.connected.rows(_KEPT, key_of(session)):
            if not seq == lines == last:
                return f"the database has {lines} of its {seq} lines"
            if size != length:
                return f"the database has {length} of its {size} bytes"
        return None

    def growing(self, session: SessionId) -> Growing:
        return _GrowingRows(self.connected, session)


class Tables:
    """A `gateway.verbs.sessions.moving.Target`."""

    def __init__(self, url: str) -> None:
        self.source = Database(url)

    def add(self, batch: list[Incoming]) -> set[SessionId]:
        """Store those that are not there yet, also beside gateways at work; returns them."""
        connected = self.source.connected
        return connected.run(take_in(connected.database, batch))


class _GrowingRows:
    def __init__(self, connected: Connected, session: SessionId) -> None:
        self._connected = connected
        self._session = session
        self._tag: str | None = None
        self._seq = 0

    def last(self, number: int) -> list[Record]:
        """The last events there are; `news` goes on behind them."""
        reader = self._connected.reader
        if page := self._page(0, 1, backwards=True):
            self._tag, self._seq = page.tag, page.head
        end = f"{self._seq:x}.{self._tag}" if self._tag else None
        return self._connected.run(reader.before(self._session, end, number)) if end else []

    def news(self) -> Iterator[Record]:
        """What was added since the last call; of a session made anew, all of it."""
        while page := self._page(self._seq, _PAGE):
            if self._tag not in (None, page.tag):
                print(BEGUN_ANEW, file=sys.stderr, flush=True)
                self._tag, self._seq = page.tag, 0
                continue
            self._tag = page.tag
            if not page.lines:
                return
            self._seq = page.lines[-1][0]
            yield from self._connected.reader.records(self._session, page.tag, page.lines)

    def _page(self, low: int, most: int, *, backwards: bool = False) -> Page | None:
        reader = self._connected.reader
        return self._connected.run(reader.page(self._session, low, 2**62, most, backwards=backwards))
