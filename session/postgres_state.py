"""What nodes keep together beside the transcripts, and work that one of them does for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from session.errors import SessionError
from session.postgres_database import Connection, Database

_LOCK = 0x6C756E6173  # an advisory lock, beside that of the schema
_HOLDER = "duty"  # the state that names the node which has it
_BEAT = 2.0  # seconds between two signs of life, and between two tries to get the lock
_PATIENCE = 3.0  # seconds for an answer to one; together they must be less than what the server waits
_IDLE = "7000"  # ms without a sign after which the server ends the connection, and so gives the lock away

_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, SessionError)


class State:
    """`channels.telegram.shared.SharedState`, in an open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def state(self, name: str) -> bytes | None:
        """What is kept under this name, None where nothing is; raises `StorageError`."""
        rows = await self._database.rows("select value from lunar.state where name = $1", name)
        return bytes(rows[0][0]) if rows else None

    async def set_state(self, name: str, value: bytes, expected: bytes | None) -> bool:
        """Keep this instead of `expected`; False where something else is kept. Raises `StorageError`."""
        row = await self._database.row("select lunar.set_state($1, $2, $3)", name, value, expected)
        return row is not None and bool(row[0])


class Duty:
    """`channels.telegram.shared.Duty`: an advisory lock, on a connection of its own.

    The server gives the lock to another node when this one dies, is cut off or stands still for seven
    seconds; before that, this one has stopped its work, unless it stands still.
    """

    def __init__(self, database: Database, node: str) -> None:
        self.holder: str | None = None
        self._database = database
        self._node = node

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work whenever the lock is ours, until it is done; raises what it raises."""
        while True:
            connection: Connection | None = None
            done: asyncio.Future[None] | None = None
            try:
                connection = await self._database.connect(
                    _PATIENCE, idle_session_timeout=_IDLE, statement_timeout="2000", lock_timeout="0"
                )
                await self._taken(connection)
                done = await _done_while_held(connection, work)
            except _LOST:
                self.holder = None  # nobody knows: there is no database to ask
            finally:
                if connection is not None:
                    connection.terminate()  # at once: the lock is free for the others
            if done is not None:
                return done.result()
            await asyncio.sleep(_BEAT)

    async def _taken(self, connection: Connection) -> None:
        while not await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK, timeout=_PATIENCE):
            named = await connection.fetchval("select value from lunar.state where name = $1", _HOLDER)
            self.holder = bytes(named or b"").decode(errors="replace") or None
            await asyncio.sleep(_BEAT)
        self.holder = None
        await connection.execute(
            "insert into lunar.state values ($1, $2) on conflict (name) do update set value = excluded.value",
            _HOLDER,
            self._node.encode(errors="replace"),
        )


async def _done_while_held(
    connection: Connection, work: Callable[[], Awaitable[None]]
) -> asyncio.Future[None] | None:
    """The work at its end; None where it was broken off, for the lock may be another's."""
    doing = asyncio.ensure_future(work())
    try:
        while not doing.done():
            await asyncio.wait({doing}, timeout=_BEAT)
            await connection.fetchval("select 1", timeout=_PATIENCE)
    except _LOST:
        if not doing.done():
            return None
    finally:
        doing.cancel()
        await asyncio.wait({doing})
    return doing
