"""What the tests' gateways have stored, seen from outside: files, or a database for each data directory.

LUNAR_TEST_STORE=postgres chooses the latter for every gateway of a test that names no store itself:
`LUNAR_TEST_STORE=postgres make test ARGS=tests/channels`. A test with `@both_stores` always does both.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import pytest

from session import ids
from session.ids import SessionId
from session.postgres import PostgresStore
from session.protocols import SharedStore
from tests.fakes.postgres_server import shared

# Over both, also where the environment says nothing: by the fixture `store` of tests/channels.
both_stores = pytest.mark.parametrize("store", ["files", "postgres"], indirect=True)
files_only = pytest.mark.skipif(os.environ.get("LUNAR_TEST_STORE") == "postgres", reason="it is about files")

_databases: dict[Path, Database] = {}


class Kept(Protocol):
    """The transcripts of one gateway, whether it runs or not."""

    def sessions(self) -> list[str]:
        """The ids of all of them."""

    def raw(self, session: str) -> bytes:
        """A transcript's bytes, each line ended; none where there is no such session."""

    def put(self, session: str, raw: bytes) -> None:
        """A transcript that was not there before."""

    def take_away(self) -> None:
        """From now on nothing can be read or stored."""

    def bring_back(self) -> None:
        """From now on it can."""


class Files:
    """Below a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "sessions"
        self._away = data_dir / "away"

    def sessions(self) -> list[str]:
        return [ids.from_file_name(path.name) for path in self._folder.iterdir()]

    def raw(self, session: str) -> bytes:
        path = self._folder / ids.file_name(SessionId(session))
        return path.read_bytes() if path.exists() else b""

    def put(self, session: str, raw: bytes) -> None:
        (self._folder / ids.file_name(SessionId(session))).write_bytes(raw)

    def take_away(self) -> None:
        self._folder.rename(self._away)

    def bring_back(self) -> None:
        self._away.rename(self._folder)


class Database:
    """In a database of its own on the server that the tests share."""

    def __init__(self) -> None:
        self.url = shared().database()
        self.name = self.url.rpartition("/")[2]

    def sql(self, statement: str) -> str:
        """Carry it out; what came, one row a line."""
        return shared().sql(statement, self.name)

    def sessions(self) -> list[str]:
        found = self.sql("select encode(id, 'hex') from lunar.session").split()
        return [bytes.fromhex(id).decode() for id in found]

    def raw(self, session: str) -> bytes:
        lines = self.sql(
            "select encode(e.line, 'hex') from lunar.event e join lunar.session s on s.key = e.session"
            f" where s.id = '\\x{session.encode().hex()}' order by e.seq"
        )
        return b"".join(bytes.fromhex(line) + b"\n" for line in lines.split())

    def put(self, session: str, raw: bytes) -> None:
        lines = raw.splitlines()
        name, rows = session.encode().hex(), ", ".join(f"'\\x{line.hex()}'::bytea" for line in lines)
        self.sql(
            "with made as (insert into lunar.session (name, id, seq, bytes)"
            f" values ('\\x{name}', '\\x{name}', {len(lines)}, {len(raw)}) returning key)"
            f" insert into lunar.event select key, number, line from made, unnest(array[{rows}])"
            " with ordinality as given (line, number)"
        )

    def take_away(self) -> None:
        shared().sql(f"alter database {self.name} allow_connections false")
        shared().sql(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{self.name}'")

    def bring_back(self) -> None:
        shared().sql(f"alter database {self.name} allow_connections true")

    def drop(self) -> None:
        """Remove it, whoever is still connected."""
        shared().sql(f"drop database {self.name} with (force)")


def database(data_dir: Path) -> Database | None:
    """That of a data directory, in all lives of its gateway; None where files are asked for."""
    if os.environ.get("LUNAR_TEST_STORE", "files") != "postgres":
        return None
    if data_dir not in _databases:
        _databases[data_dir] = Database()
    return _databases[data_dir]


def of(data_dir: Path) -> Kept:
    """What the gateway on this data directory keeps."""
    return _databases.get(data_dir) or Files(data_dir)


def shared_store(data_dir: Path) -> SharedStore | None:
    """A store over the directory's database, not opened yet; None where files are asked for."""
    found = database(data_dir)
    return PostgresStore(found.url, data_dir, "node") if found else None


def forget(folder: Path) -> None:
    """Remove the databases of the gateways below a folder."""
    for data_dir in [path for path in _databases if path.is_relative_to(folder)]:
        _databases.pop(data_dir).drop()
