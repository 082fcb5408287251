"""`lunar sessions import`: sessions of another data directory, or an export, into this store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway import config_file
from gateway.config import Config
from gateway.errors import BadArgument, Held, Unreadable
from gateway.verbs.sessions.finding import disk, find
from gateway.verbs.sessions.moving import Target, folder, move
from gateway.verbs.sessions.source import Files
from session.errors import StoreLocked
from session.listing import Entry
from session.lock import reading


def main(config: str | None, source: Path, sessions: list[str]) -> int:
    """Bring these sessions, or all, from the directory; exits 1 where one could not be.

    Raises `Held` where a gateway may change one of the two meanwhile, `NoSuchSession`, `Unreadable`.
    """
    settings = config_file.load(config)
    if not any((source / name).is_dir() for name in ("sessions", "archive")):
        raise Unreadable(
            f"{source} is no data directory, export or backup folder: it has no folder `sessions`."
        )
    if settings.store.url is None and source.resolve() == settings.data_dir.resolve():
        raise BadArgument(f"{source} is this store's own directory: set store.url, or name another one.")
    with disk(), _still(source), _target(settings) as target:
        files = Files(source)
        tally = move(files, _entries(files, sessions), target, "Importing")
    return tally.told("imported")


def _entries(files: Files, sessions: list[str]) -> list[Entry]:
    named = {find(files, name) for name in sessions}
    return sorted(entry for entry in files.entries() if not sessions or entry.session in named)


@contextmanager
def _still(source: Path) -> Iterator[None]:
    """Nobody adds to what is being read: that would be missing in the new store."""
    try:
        with reading(source):
            yield
    except StoreLocked as error:
        raise Held(f"A gateway is running there: {error}. Stop it first.") from error


@contextmanager
def _target(settings: Config) -> Iterator[Target]:
    if settings.store.url is None:
        with folder(settings.data_dir) as target:
            yield target
        return
    from gateway.verbs.sessions.database import Tables

    yield Tables(settings.store.url.get_secret_value())
