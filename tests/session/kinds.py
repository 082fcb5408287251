"""Both stores, as the tests of what they have in common use them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

from session import ids
from session.ids import SessionId
from session.postgres import PostgresStore
from session.protocols import TranscriptStore
from session.store import Store
from tests.fakes.postgres_server import shared

KINDS = ("files", "postgres")


class Home(Protocol):
    """Where transcripts are kept, from one opening of the store to the next."""

    async def open(self) -> TranscriptStore:
        """The store; the one before must be closed."""

    def damage(self, session: SessionId, number: int, line: bytes) -> None:
        """Put other bytes in the place of a session's line, numbered from 0."""


class Files:
    """In a data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def open(self) -> Store:
        store = Store(self.folder, max_open=8, threads=4)
        await store.open()
        return store

    def damage(self, session: SessionId, number: int, line: bytes) -> None:
        path = self.folder / "sessions" / ids.file_name(session)
        lines = path.read_bytes().split(b"\n")
        assert len(line) == len(lines[number]), "an open file must keep its size"
        lines[number] = line
        with path.open("r+b") as file:
            file.write(b"\n".join(lines))


class Postgres:
    """In a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = shared().database()
        self.count = 0

    async def open(self, name: str = "node") -> PostgresStore:
        """Another node over the same database."""
        self.count += 1
        store = PostgresStore(self.url, self.folder / str(self.count), name, connections=4)
        await store.open()
        return store

    def sql(self, statement: str) -> str:
        """Carry out a statement in the database."""
        return shared().sql(statement, self.url.rpartition("/")[2])

    def damage(self, session: SessionId, number: int, line: bytes) -> None:
        self.sql(
            f"update lunar.event set line = '\\x{line.hex()}' where seq = {number + 1} and session ="
            f" (select key from lunar.session where id = '\\x{session.encode().hex()}')"
        )


def home(kind: str, folder: Path | None = None) -> Home:
    """An empty one of this kind."""
    folder = folder or Path(tempfile.mkdtemp(prefix="lunar-store-"))
    return Files(folder) if kind == "files" else Postgres(folder)
