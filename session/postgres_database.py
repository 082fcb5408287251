"""Connections to PostgreSQL, and its errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.exceptions import ClientConfigurationError, TargetServerAttributeNotMatched

from session.errors import StorageError, StoreUnfit

T = TypeVar("T")
Row = asyncpg.Record
Connection = asyncpg.Connection

_CONNECT = 3.0  # seconds for one server to take a connection
_FREE = 6.0  # seconds to wait for a connection of the pool
_ANSWER = 8.0  # seconds to wait for an answer; the server gives up before that, and then it is known
_ALONE = 60.0  # the same, of work that has a connection for itself
_CANCEL = 1.0  # seconds for the server to hear that nobody waits any more
_SETTINGS = {
    "statement_timeout": "6000",  # ms
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "10000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
}
_NO_RIGHTS = (
    "does not let the user of store.url do what is needed: it must own the database, or have CREATE on it"
)
_UNFIT: dict[type[Exception], str] = {
    asyncpg.InvalidPasswordError: "refuses the user or the password of store.url",
    asyncpg.InvalidAuthorizationSpecificationError: "does not let the user of store.url in (pg_hba.conf)",
    asyncpg.InvalidCatalogNameError: "has no database of this name; make it with createdb",
    asyncpg.InsufficientPrivilegeError: _NO_RIGHTS,
}
_HELD_UP = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
# What one server says or does, where another one may do better.
_ELSEWHERE = (
    OSError,
    TargetServerAttributeNotMatched,
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
)
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class HeldUp(StorageError):
    """The server gave a statement up, for another one stood in its way; it was not carried out."""


class OutcomeUnknown(StorageError):
    """The statement was sent, and its answer was lost: it may have been carried out."""


async def _nothing(connection: Any) -> None:
    """Nothing that we do to a connection must be undone: no round trip for it."""


class Database:
    """The servers of one url, of which the one that takes writes is used; `open` it first."""

    def __init__(self, url: str, label: str, connections: int = 10) -> None:
        self.place = "PostgreSQL"  # and where it is, for people
        self.begun = False  # set after the first use: from then on nothing is `StoreUnfit`, all may pass
        self._url = url
        self._label = label
        self._most = connections
        self._hosts: list[str] = []  # one url each; the one that answered last comes first
        self._pool: asyncpg.Pool[Row] | None = None

    async def open(self) -> None:
        """Connect; raises `StoreUnfit`, `StorageError`."""
        self._hosts, self.place = _servers(self._url)
        pool = asyncpg.create_pool(
            min_size=0,  # made when they are needed: a server that is away is asked by nobody in vain
            max_size=self._most,
            command_timeout=_ALONE,
            connect=self._connected,
            reset=_nothing,
        )
        with self.mapped():
            self._pool = await pool
        await self.row("select 1")

    async def close(self) -> None:
        """End every connection."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), _CANCEL)
            except FAILURES:
                self._pool.terminate()

    async def connect(self, answer: float, **settings: str) -> Connection:
        """A connection beside the pool; `answer`: seconds for each statement. Raises as `open`."""
        with self.mapped():
            return await self._connected(command_timeout=answer, server_settings=settings)

    async def _connected(self, *_: Any, **options: Any) -> Connection:
        """To the first server that takes writes.

        One by one, each with its own time: a host without power must not use up that of its standby.
        """
        settings = {"application_name": self._label, "synchronous_commit": "on", **_SETTINGS}
        options["server_settings"] = settings | (options.get("server_settings") or {})
        failed: Exception | None = None
        for host in list(self._hosts):
            try:
                connection: Connection = await asyncpg.connect(
                    host, timeout=_CONNECT, target_session_attrs=SessionAttribute.read_write, **options
                )
            except _ELSEWHERE as error:
                failed = failed or error
            else:
                self._hosts.sort(key=lambda one: one != host)
                return connection
        assert failed is not None
        raise failed

    # -- statements ------------------------------------------------------------------------------

    async def row(self, statement: str, *arguments: object) -> Row | None:
        """Its first row; raises `OutcomeUnknown`, `StorageError`."""
        row: Row | None = await self._use(
            _in_time(lambda connection: connection.fetchrow(statement, *arguments))
        )
        return row

    async def row_or_nothing(self, statement: str, *arguments: object) -> Row | None:
        """`row`, of a statement that must not be carried out late: only once its answer is here.

        Until then it holds what it has changed, and so nobody can have changed that since.
        """

        async def whole(connection: Any) -> Row | None:
            async with connection.transaction():
                row: Row | None = await connection.fetchrow(statement, *arguments)
                return row

        return await self._use(_in_time(whole))

    async def rows(self, statement: str, *arguments: object) -> list[Row]:
        """The rows of a statement that only reads; tried again once on another connection."""

        def fetch(connection: Any) -> Awaitable[list[Row]]:
            found: Awaitable[list[Row]] = connection.fetch(statement, *arguments)
            return found

        try:
            return await self._use(_in_time(fetch))
        except OutcomeUnknown:
            return await self._use(_in_time(fetch))

    async def alone(self, work: Callable[[Any], Awaitable[None]]) -> None:
        """Let `work` have a connection for itself, in a transaction."""

        async def whole(connection: Any) -> None:
            async with connection.transaction():
                await work(connection)

        await self._use(whole)

    async def _use(self, work: Callable[[Any], Awaitable[T]]) -> T:
        if self._pool is None:
            raise StorageError(f"{self.place} is not connected")
        with self.mapped():
            connection = await self._pool.acquire(timeout=_FREE)
        try:
            with self.mapped(sent=True):
                return await work(connection)
        finally:
            try:
                await self._pool.release(connection, timeout=_CANCEL)
            except FAILURES:
                pass  # it is closed then; what was carried out on it was carried out

    @contextmanager
    def mapped(self, *, sent: bool = False) -> Iterator[None]:
        """Raise what the library and the sockets raise as ours; `sent`: a statement is on its way."""
        try:
            yield
        except (StorageError, StoreUnfit):
            raise
        except (ClientConfigurationError, UnicodeError) as error:
            if not self.begun:
                raise _unusable(type(error).__name__) from None
            # It was understood before: a file that it names (a certificate) is away for the moment.
            raise StorageError(f"{self.place} cannot be reached: {error}") from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            # A primary that became a standby: the next connection looks for the one that takes writes.
            if self._pool is not None:
                self._expire()
            raise StorageError(f"{self.place} takes no writes") from error
        except (asyncpg.AdminShutdownError, asyncpg.CrashShutdownError) as error:
            raise (OutcomeUnknown if sent else StorageError)(f"{self.place} is being stopped") from error
        except asyncpg.PostgresConnectionError as error:
            raise (OutcomeUnknown if sent else StorageError)(f"{self.place}: the connection broke") from error
        except asyncpg.PostgresError as error:
            raise self._answered(error) from error
        except TimeoutError as error:
            raise (OutcomeUnknown if sent else StorageError)(f"{self.place} does not answer") from error
        except TargetServerAttributeNotMatched as error:
            raise StorageError(f"{self.place}: no server there takes writes") from error
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            text = f"{self.place} cannot be reached: {_bare(error)}"
            raise (OutcomeUnknown if sent else StorageError)(text) from error

    def _expire(self) -> None:
        assert self._pool is not None
        asyncio.ensure_future(self._pool.expire_connections())  # noqa: RUF006 - it only turns a number

    def _answered(self, error: asyncpg.PostgresError) -> Exception:
        for kind, sentence in _UNFIT.items():
            if isinstance(error, kind):
                return (StorageError if self.begun else StoreUnfit)(f"{self.place} {sentence}.")
        failed = HeldUp if isinstance(error, _HELD_UP) else StorageError
        return failed(f"{self.place}: {error.args[0] if error.args else type(error).__name__}")


def _in_time(work: Callable[[Any], Awaitable[T]]) -> Callable[[Any], Awaitable[T]]:
    """The same; where no answer comes, the connection is cut, and the statement is never cancelled.

    A commit that waits for a standby and is cancelled is over: the server shows it to everybody from then on,
    though the standby never got it. We would acknowledge what the next fail-over loses.
    """

    async def limited(connection: Any) -> T:
        doing = asyncio.ensure_future(work(connection))
        doing.add_done_callback(lambda doing: doing.cancelled() or doing.exception())
        try:
            answered, _ = await asyncio.wait({doing}, timeout=_ANSWER)
        finally:
            if not doing.done():
                connection.terminate()
        if not answered:
            raise TimeoutError
        return await doing

    return limited


def _bare(error: Exception) -> str:
    """What a socket says, without our arguments."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _unusable(why: str) -> StoreUnfit:
    return StoreUnfit(
        "store.url is no address of PostgreSQL: postgresql://user:password@host:port/database, in a password "
        f"each of the characters @ : / ? # % written as its code, such as %40 ({why})."
    )


def _servers(url: str) -> tuple[list[str], str]:
    """A url for each of the servers that a url names, and where they are, without a password."""
    try:
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        if parts.scheme not in ("postgresql", "postgres") or parts.fragment:
            raise _unusable("it does not begin with postgresql://" if not parts.fragment else "#")
        for host in hosts.split(","):
            _ = urlsplit(f"//{host}").port  # raises where it is no number
    except ValueError:
        raise _unusable("a port is no number") from None
    named = hosts or ",".join(parse_qs(parts.query).get("host", ["this machine"]))
    place = f"PostgreSQL at {named}{parts.path}"
    return [urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")], place
