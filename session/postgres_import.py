"""Whole sessions into the database, as they were stored elsewhere: all of one, or nothing of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from session import events
from session.events import BadLine
from session.ids import SessionId
from session.incoming import Incoming
from session.postgres_database import Database
from session.postgres_reading import key_of

_PATIENCE = 3600.0  # seconds for the lines of one call
_INSERT = (
    "insert into lunar.session (name, id, modified, open)"
    " select * from unnest($1::bytea[], $2::bytea[], $3::timestamptz[], $4::boolean[])"
    " on conflict (name) do nothing returning key, name"
)
_COUNT = (
    "update lunar.session s set seq = g.seq, bytes = g.bytes"
    " from unnest($1::bigint[], $2::bigint[], $3::bigint[]) g(key, seq, bytes) where s.key = g.key"
)


async def take_in(database: Database, batch: Sequence[Incoming]) -> set[SessionId]:
    """Store those that are not there yet, in one transaction; returns them. Raises `StorageError`."""
    stored: set[SessionId] = set()

    async def work(connection: Any) -> None:
        await connection.execute("set local statement_timeout = 0")
        made = await connection.fetch(
            _INSERT,
            [key_of(one.session) for one in batch],
            [one.session.encode("utf-8", "surrogatepass") for one in batch],
            [datetime.fromtimestamp(one.modified, UTC) for one in batch],
            [one.open for one in batch],
        )
        keys = {row["name"]: row["key"] for row in made}
        given = [(keys[key], one) for one in batch if (key := key_of(one.session)) in keys]
        if not given:
            return
        lines = _Lines(given)
        await connection.copy_records_to_table(
            "event", schema_name="lunar", columns=("session", "seq", "line"), records=lines, timeout=_PATIENCE
        )
        await connection.copy_records_to_table(
            "message",
            schema_name="lunar",
            columns=("session", "id", "seq"),
            records=((key, id, seq) for (key, id), seq in lines.ids.items()),
            timeout=_PATIENCE,
        )
        counted = [(key, *count) for key, count in lines.counts.items()]
        await connection.execute(_COUNT, *(list(column) for column in zip(*counted, strict=True)))
        stored.update(one.session for _, one in given)

    await database.alone(work)
    return stored


class _Lines:
    """The rows of some sessions, read while they are sent, and what is to be known of them behind that."""

    def __init__(self, given: list[tuple[int, Incoming]]) -> None:
        self.counts = {key: (0, 0) for key, _ in given}  # lines and bytes
        self.ids: dict[tuple[int, bytes], int] = {}  # of messages, and the line of the first one of that id
        self._given = given

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        for key, one in self._given:
            seq = size = 0
            for block in one.blocks():
                size += len(block)
                for line in block[:-1].split(b"\n"):
                    seq += 1
                    if (id := _id(line)) is not None:
                        self.ids.setdefault((key, key_of(id)), seq)
                    yield key, seq, line
            self.counts[key] = seq, size


def _id(line: bytes) -> str | None:
    if b'"id"' not in line:
        return None
    try:
        id = getattr(events.decode(line), "id", None)
    except BadLine:
        return None
    return id if isinstance(id, str) else None
