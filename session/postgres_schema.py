"""The tables and functions in the database: brought to the version that this program knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from session.errors import StoreUnfit
from session.postgres_database import Database

_FOLDER = Path(__file__).parent / "schema"
_LOCK = 0x6C756E6172  # an advisory lock: one of all nodes that start at once does it
OLDEST = 140_000  # of PostgreSQL, as server_version_num writes it


def steps() -> list[Path]:
    """The files that are carried out one after the other: `NNNN_name.sql`."""
    return sorted(_FOLDER.glob("[0-9][0-9][0-9][0-9]_*.sql"))


async def prepare(database: Database) -> None:
    """Carry out what was not carried out yet; raises `StoreUnfit`, `StorageError`."""
    known = len(steps())
    server = await database.row(
        "select current_setting('server_version_num')::int, current_setting('server_version'),"
        " to_regclass('lunar.migration') is not null"
    )
    assert server is not None
    if server[0] < OLDEST:
        raise StoreUnfit(f"{database.place} is version {server[1]}: at least 14 is needed.")
    if server[2] and await version(database) == known:
        return
    await database.alone(_migrate)
    if (reached := await version(database)) > known:
        raise StoreUnfit(
            f"{database.place} was used by a newer gateway (schema {reached}; this one knows {known}): "
            "update this one."
        )


async def version(database: Database) -> int:
    """How many steps were carried out; raises `StorageError`."""
    made = await database.row("select to_regclass('lunar.migration') is not null")
    if made is None or not made[0]:
        return 0
    row = await database.row("select coalesce(max(number), 0) from lunar.migration")
    return int(row[0]) if row else 0


async def _migrate(connection: Any) -> None:
    await connection.execute("set local statement_timeout = 0; set local lock_timeout = 0")
    await connection.execute("select pg_advisory_xact_lock($1)", _LOCK, timeout=600)
    await connection.execute("create schema if not exists lunar")
    await connection.execute(
        "create table if not exists lunar.migration"
        " (number int primary key, name text not null, at timestamptz not null default now())"
    )
    done = await connection.fetchval("select coalesce(max(number), 0) from lunar.migration")
    for step in steps()[done:]:
        await connection.execute(step.read_text(encoding="utf-8"), timeout=3600)
        await connection.execute(
            "insert into lunar.migration (number, name) values ($1, $2)", int(step.stem[:4]), step.stem[5:]
        )


async def warnings(database: Database) -> list[str]:
    """What in the server's settings endangers what is acknowledged."""
    row = await database.row(
        "select current_setting('fsync'), current_setting('full_page_writes'),"
        " current_setting('synchronous_commit')"
    )
    assert row is not None
    told = {
        "fsync is off: what is acknowledged is lost when its machine fails": row[0],
        "full_page_writes is off: the database may be damaged when its machine fails": row[1],
        "synchronous_commit could not be set: what is acknowledged may be lost": row[2],
    }
    return [f"{database.place}: {text}" for text, value in told.items() if value == "off"]
