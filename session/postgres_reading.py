"""What is stored, read forwards and backwards."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple

from session import events, ids
from session.errors import BadCursor
from session.events import BadLine, Record
from session.ids import SessionId
from session.listing import Entry
from session.postgres_database import Database, Row

_FIRST, _MOST = 64, 256  # lines that are asked for at once, at first and later
_FOUND = "with s as materialized (select key, tag, seq from lunar.session where name = $1)"
# Without a row where there is no such session; with one without a line where nothing is in the range.
FORWARDS = (
    f"{_FOUND} select s.key, s.tag, s.seq as head, e.seq, e.line from s left join lateral"
    " (select seq, line from lunar.event where session = s.key and seq > $2 and seq <= $3"
    " order by seq limit $4) e on true order by e.seq"
)
BACKWARDS = (
    f"{_FOUND} select s.key, s.tag, s.seq as head, e.seq, e.line from s left join lateral"
    " (select seq, line from lunar.event where session = s.key and seq > $2 and seq <= $3"
    " order by seq desc limit $4) e on true order by e.seq desc"
)
_LONGEST = 256  # bytes of an id that is its own key
_END = 2**62


def key_of(id: str) -> bytes:
    """What an id is found by: any text, lone surrogates and NUL included, and never too long for an index."""
    raw = id.encode("utf-8", "surrogatepass")
    # No UTF-8 begins with ff.
    return raw if len(raw) <= _LONGEST else b"\xff" + hashlib.sha256(raw).digest()


def id_of(raw: bytes) -> SessionId:
    """A session's id as the table has it."""
    return SessionId(raw.decode("utf-8", "surrogatepass"))


class Place(NamedTuple):
    """A cursor: behind which line, in which life of the session."""

    seq: int
    tag: str

    def __str__(self) -> str:
        return f"{self.seq:x}.{self.tag}"

    @classmethod
    def of(cls, cursor: str) -> Place:
        """Raises `BadCursor`."""
        seq, _, tag = cursor.partition(".")
        try:
            place = cls(int(seq, 16), tag)
        except ValueError:
            raise BadCursor(f"{cursor!r} is not a cursor") from None
        if str(place) != cursor or not 1 <= place.seq <= _END:
            raise BadCursor(f"{cursor!r} is not a cursor")
        return place


class Page(NamedTuple):
    """Some lines of a session, with their numbers."""

    tag: str
    head: int  # the last line's number
    lines: list[tuple[int, bytes]]


class Reader:
    """Reads sessions; `skipped` gets the name and number of each line that is no event."""

    def __init__(self, database: Database) -> None:
        self.skipped: set[tuple[str, int]] = set()
        self._database = database

    async def page(
        self, session: SessionId, low: int, high: int, limit: int, *, backwards: bool = False
    ) -> Page | None:
        """Lines behind `low` up to and including `high`; None where there is no such session."""
        statement = BACKWARDS if backwards else FORWARDS
        return _page(await self._database.rows(statement, key_of(session), low, high, limit))

    def records(self, session: SessionId, tag: str, lines: Iterable[tuple[int, bytes]]) -> list[Record]:
        """Those of the lines that are events."""
        found = []
        for seq, line in lines:
            try:
                found.append(Record(str(Place(seq, tag)), events.decode(line), line))
            except BadLine:
                if line:
                    self.skipped.add((ids.file_name(session), seq))
        return found

    async def end(self, session: SessionId) -> str | None:
        """The cursor after the last line."""
        page = await self.page(session, _END, _END, 1)
        return str(Place(page.head, page.tag)) if page else None

    async def recent(self, session: SessionId, enough: Callable[[Record], bool]) -> list[Record]:
        """Events from the end back to the first one of which `enough` is true, oldest first."""
        found: list[Record] = []
        size, high, tag = _FIRST, _END, ""
        while (page := await self.page(session, 0, high, size, backwards=True)) and page.lines:
            if page.tag != (tag := tag or page.tag):
                return []  # it was deleted meanwhile
            for record in self.records(session, page.tag, page.lines):
                found.append(record)
                if enough(record):
                    return found[::-1]
            if len(page.lines) < size:
                break
            high = page.lines[-1][0] - 1
            size = min(2 * size, _MOST)
        return found[::-1]

    async def after(
        self, session: SessionId, cursor: str | None, limit: int, until: str | None
    ) -> list[Record]:
        """Up to `limit` events behind the cursor and not behind `until`; raises `BadCursor`."""
        begin = Place.of(cursor) if cursor is not None else None
        end = Place.of(until) if until is not None else None
        low, high = begin.seq if begin else 0, end.seq if end else _END
        found: list[Record] = []
        while (size := min(limit - len(found), _MOST)) > 0:
            page = await self.page(session, low, high, size)
            if page is None:
                break
            _check(page, begin, end)
            found += self.records(session, page.tag, page.lines)
            if len(page.lines) < size:
                break
            low = page.lines[-1][0]
        return found

    async def before(self, session: SessionId, cursor: str | None, limit: int) -> list[Record]:
        """Up to `limit` events, the newest of them the one that ends at the cursor; raises `BadCursor`."""
        end = Place.of(cursor) if cursor is not None else None
        high = end.seq if end else _END
        found: list[Record] = []
        while (size := min(limit - len(found), _MOST)) > 0:
            page = await self.page(session, 0, high, size, backwards=True)
            if page is None:
                break
            _check(page, end)
            found += self.records(session, page.tag, page.lines)
            if len(page.lines) < size:
                break
            high = page.lines[-1][0] - 1
        return found[::-1]

    async def listing(self) -> list[Entry]:
        """Every session, latest first."""
        rows = await self._database.rows(
            "select id, bytes, extract(epoch from modified)::float8 from lunar.session order by modified desc"
        )
        return [Entry(id_of(id), size, modified) for id, size, modified in rows]

    async def blocks(self, session: SessionId) -> AsyncIterator[bytes]:
        """The whole lines of a session as they are stored."""
        low, tag = 0, ""
        while (page := await self.page(session, low, _END, _MOST)) and page.lines:
            if page.tag != (tag := tag or page.tag):
                return  # it was deleted meanwhile
            yield b"".join(part for _, line in page.lines for part in (line, b"\n"))
            low = page.lines[-1][0]
            if low == page.head:
                return


def _page(rows: list[Row]) -> Page | None:
    if not rows:
        return None
    lines = [(row["seq"], row["line"]) for row in rows if row["seq"] is not None]
    return Page(rows[0]["tag"], rows[0]["head"], lines)


def _check(page: Page, *places: Place | None) -> None:
    for place in places:
        if place is not None and (place.tag != page.tag or place.seq > page.head):
            raise BadCursor(f"{str(place)!r} is not a cursor of this session")
