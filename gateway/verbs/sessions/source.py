"""Where commands read transcripts: below the data directory, or in a database that several gateways share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from gateway.config import Config
from session import archive, ids, listing
from session.errors import DamagedArchive
from session.events import Record
from session.ids import SessionId
from session.listing import Entry
from session.transcript import Transcript

Rest = Callable[[bytes], object]


class Growing(Protocol):
    """How far one reader has come in a session that grows, is deleted, or made anew."""

    def last(self, number: int) -> list[Record]:
        """The last events there are; `news` goes on behind them."""

    def news(self) -> Iterator[Record]:
        """What was added since the last call; of a session made anew, all of it."""


class Source(Protocol):
    """Picklable: processes that share the work read each for themselves. All of it raises `OSError`."""

    @property
    def place(self) -> str:
        """What people call it; no password is in it."""

    def entries(self) -> Iterator[Entry]:
        """Every session, in no order."""

    def holds(self, session: SessionId) -> bool:
        """Whether there is such a session."""

    def opened(self, session: SessionId) -> tuple[Transcript, DamagedArchive | None]:
        """A session for reading, and what is wrong with its archive; raises `FileNotFoundError`."""

    def blocks(self, session: SessionId, rest: Rest | None = None) -> Iterator[bytes]:
        """Its whole lines, unchecked, in blocks that end with a line; raises `FileNotFoundError`.

        `rest` is told at the end what stands behind the last whole line, where anything does.
        """

    def doubt(self, session: SessionId) -> str | None:
        """What is wrong with how it is kept, beyond its lines."""

    def growing(self, session: SessionId) -> Growing:
        """A reader that goes on with what is added."""


def of(config: Config) -> Source:
    """Where this configuration keeps transcripts; the database's library is loaded only for a database."""
    if config.store.url is None:
        return Files(config.data_dir)
    from gateway.verbs.sessions.database import Database

    return Database(config.store.url.get_secret_value())


class Files(NamedTuple):
    """A data directory, with or without a running daemon."""

    data_dir: Path

    @property
    def place(self) -> str:
        return str(self.data_dir)

    def entries(self) -> Iterator[Entry]:
        return listing.entries(self.data_dir)

    def holds(self, session: SessionId) -> bool:
        name = ids.file_name(session)
        return (self.data_dir / "sessions" / name).exists() or archive.path_of(self.data_dir, name).exists()

    def opened(self, session: SessionId) -> tuple[Transcript, DamagedArchive | None]:
        return archive.opened(self.data_dir, ids.file_name(session))

    def blocks(self, session: SessionId, rest: Rest | None = None) -> Iterator[bytes]:
        return archive.blocks(self.data_dir, ids.file_name(session), rest)

    def doubt(self, session: SessionId) -> str | None:
        name = ids.file_name(session)
        return "its archive holds something else" if archive.contradicts(self.data_dir, name) else None

    def growing(self, session: SessionId) -> Growing:
        from gateway.verbs.sessions.growing import GrowingFile

        return GrowingFile(self.data_dir, ids.file_name(session))
