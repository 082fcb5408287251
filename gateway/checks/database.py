"""The database that several gateways share: is it there, fit, and set so that nothing is lost."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from gateway.checks.finding import Finding, Scene, ok, problem, warning
from session.errors import StorageError, StoreUnfit

if TYPE_CHECKING:
    from session.postgres_database import Database

_OFF = 5.0  # seconds that its clock may differ from ours
_NEEDED = 15  # connections of one node, and some for its commands
_FIX_URL = "see that it runs and can be reached from here, and that store.url names it"
_SERVER = (
    "select current_setting('server_version') as version,"
    " current_setting('server_version_num')::int as number,"
    " extract(epoch from clock_timestamp())::float8 as clock, current_user as name,"
    " current_database() as database, current_setting('max_connections')::int as most,"
    " (select count(*) from pg_stat_activity where backend_type = 'client backend') as used,"
    " current_setting('synchronous_standby_names') as standbys"
)
# Whether the tables are there, and may be made; which of them may not be used.
_RIGHTS = (
    "select exists (select from pg_class where relnamespace = to_regnamespace('lunar')"
    " and relname = 'migration') as made,"
    " has_database_privilege(current_database(), 'create') as may_make,"
    " coalesce((select string_agg(c.relname, ', ' order by c.relname) from pg_class c"
    " where c.relnamespace = to_regnamespace('lunar') and c.relkind = 'r'"
    " and not (has_schema_privilege(c.relnamespace, 'usage')"
    " and has_table_privilege(c.oid, 'select') and (c.relname = 'migration'"
    " or has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'update')"
    " and has_table_privilege(c.oid, 'delete')))), '') as closed"
)


class _Seen(NamedTuple):
    """What the server says; `trip` in seconds, `off`: its clock behind or before ours."""

    version: str
    number: int
    off: float
    trip: float
    name: str
    database: str
    free: int
    standbys: str


def database(scene: Scene) -> Iterator[Finding]:
    """Whether the database can be used, and what endangers what is stored there; nothing without one."""
    if scene.config.store.url is None:
        return
    if scene.offline:
        yield ok("is not asked (--offline)")
        return
    where = scene.key("store", "url")
    try:
        yield from asyncio.run(_look(scene.config.store.url.get_secret_value(), where))
    except StoreUnfit as error:
        yield problem(
            f"{where}: {error}".rstrip("."), "correct it there, or in the server's settings", os.EX_CONFIG
        )
    except StorageError as error:
        yield problem(f"{where}: {error}", _FIX_URL, os.EX_TEMPFAIL)


async def _look(url: str, where: str) -> list[Finding]:
    from session.postgres_database import Database

    database = Database(url, "lunar check", 1)
    await database.open()
    try:
        seen = await _seen(database)
        unfit = _too_old(database, seen, where) or await _closed(database, seen, where)
        if unfit is not None:
            return [unfit]
        found = [await _schema(database, seen, where)]
        found += [
            warning(text, f"set it in postgresql.conf of {database.place}")
            for text in await _unsafe(database)
        ]
        return [*found, *_remarks(database, seen)]
    finally:
        await database.close()


async def _seen(database: Database) -> _Seen:
    await database.row("select 1")  # the connection is made, and does not count
    began, now = time.perf_counter(), time.time()
    row = await database.row(_SERVER)
    assert row is not None
    trip = time.perf_counter() - began
    off = row["clock"] - (now + trip / 2)
    free = row["most"] - row["used"]
    return _Seen(
        row["version"], row["number"], off, trip, row["name"], row["database"], free, row["standbys"]
    )


def _too_old(database: Database, seen: _Seen, where: str) -> Finding | None:
    from session.postgres_schema import OLDEST

    if seen.number >= OLDEST:
        return None
    text = f"{where}: {database.place} is version {seen.version}"
    return problem(text, f"use one of version {OLDEST // 10_000} or newer", os.EX_CONFIG)


async def _closed(database: Database, seen: _Seen, where: str) -> Finding | None:
    row = await database.row(_RIGHTS)
    assert row is not None
    if not row["made"] and not row["may_make"]:
        text = f"{where}: the user {seen.name} may make no tables in {database.place}"
        fix = f"as its owner: grant create on database {seen.database} to {seen.name}"
        return problem(text, fix, os.EX_NOPERM)
    if row["closed"]:
        text = f"{where}: the user {seen.name} may not use these tables of {database.place}: {row['closed']}"
        fix = f"as their owner: grant usage on schema lunar, and all on all tables in it, to {seen.name}"
        return problem(text, fix, os.EX_NOPERM)
    return None


async def _schema(database: Database, seen: _Seen, where: str) -> Finding:
    from session.postgres_schema import steps, version

    known, found = len(steps()), await version(database)
    about = f"{database.place}, version {seen.version}, answers in {seen.trip * 1000:.1f} ms"
    if found > known:
        text = f"{where}: a newer gateway has used {database.place} (schema {found}, this one knows {known})"
        return problem(text, "update this gateway", os.EX_CONFIG)
    if found < known:
        return ok(f"{about}; the next start brings its schema from {found} to {known}")
    safe = "a standby is waited for" if seen.standbys else "no standby is waited for"
    return ok(f"{about}; schema {found}; {safe}")


async def _unsafe(database: Database) -> list[str]:
    from session.postgres_schema import warnings

    return await warnings(database)


def _remarks(database: Database, seen: _Seen) -> Iterator[Finding]:
    if abs(seen.off) > _OFF:
        how = "ahead of" if seen.off > 0 else "behind"
        text = f"the clock of {database.place} is {abs(seen.off):.0f} s {how} this machine's"
        yield warning(text, "let both be set by NTP (timedatectl set-ntp true)")
    if seen.free < _NEEDED:
        text = f"{database.place} takes {max(seen.free, 0)} more connections; a gateway needs up to {_NEEDED}"
        yield warning(text, "raise max_connections in postgresql.conf, and restart it")
