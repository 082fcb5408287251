"""The sessions of a data directory as its files tell them, with or without a running daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from session import archive, ids
from session.directory import sync_directory
from session.errors import BadSessionId, SessionError
from session.events import System, User
from session.ids import SessionId


class Entry(NamedTuple):
    """One line of the listing: bytes on disk and the time of the last change, in seconds since the epoch."""

    session: SessionId
    size: int
    modified: float
    archived: bool = False


def id_of(data_dir: Path, name: str) -> SessionId:
    """The session id of a transcript's file name; of a shortened one, from the header in its first line.

    Raises `BadSessionId`, or `OSError` where that line cannot be read.
    """
    if not ids.is_shortened(name):
        return ids.from_file_name(name)
    transcript, _ = archive.opened(data_dir, name)
    try:
        first = transcript.after(None, 1)
    finally:
        transcript.close()
    header = first[0].event if first else None
    named = header.content if isinstance(header, System) and header.name == "session" else None
    if named and ids.file_name(named) == name:
        return SessionId(named)
    raise BadSessionId(f"{name} has no header that names its session")


def entries(data_dir: Path) -> Iterator[Entry]:
    """Every session of a data directory, in no order; reads names, sizes and times, not contents.

    Files whose names are no session's are passed over, and archives of sessions that are at hand.
    """
    met = set()
    try:
        directory = os.scandir(data_dir / "sessions")
    except FileNotFoundError:
        pass
    else:
        with directory:
            for file in directory:
                met.add(file.name)
                if found := _entry(data_dir, file, file.name, archived=False):
                    yield found
    for file in archive.names(data_dir):
        name = file.name.removesuffix(archive.ENDING)
        if name not in met and (found := _entry(data_dir, file, name, archived=True)):
            yield found


def _entry(data_dir: Path, file: os.DirEntry[str], name: str, *, archived: bool) -> Entry | None:
    if not name.endswith(ids.SUFFIX):
        return None
    try:
        session, status = id_of(data_dir, name), file.stat()
    except (SessionError, OSError):
        return None
    return Entry(session, status.st_size, status.st_mtime, archived)


def index_path(data_dir: Path, session: SessionId) -> Path:
    """Where the session's search index is, if it has one: derived, and deletable at any time."""
    return data_dir / "index" / f"{ids.file_name(session)}.sqlite3"


def remove(data_dir: Path, session: SessionId) -> bool:
    """Delete all there is of a session: what people sent, transcript, archive; False where there is none."""
    folder, name = data_dir / "sessions", ids.file_name(session)
    archived = archive.path_of(data_dir, name)
    found = False
    remove_derived(data_dir, session, _said(data_dir, session, name))
    beside = [*folder.glob(f"{name}.torn-*"), folder / f"{name}.new"]
    for path in [archived, archived.with_name(f"{archived.name}.new"), folder / name, *beside]:
        try:
            path.unlink()
            found = True
        except FileNotFoundError:
            continue
    if found:
        for changed in {folder, archived.parent}:
            if changed.is_dir():
                sync_directory(changed)
    return found


def remove_derived(data_dir: Path, session: SessionId, said: set[str]) -> None:
    """Delete the search index, and the files that came with messages of these ids."""
    index = index_path(data_dir, session)
    for derived in (index, index.with_name(f"{index.name}-journal")):
        derived.unlink(missing_ok=True)
    media = _media(data_dir, session)
    for path in media.iterdir() if media.is_dir() else ():
        if path.name.partition(".")[0] in said:
            path.unlink(missing_ok=True)


def _media(data_dir: Path, session: SessionId) -> Path:
    """Where `<message id>.<ending>` is what came with a message."""
    return data_dir / "media" / ids.parse(session)[1].provider


def _said(data_dir: Path, session: SessionId, name: str) -> set[str]:
    """The ids of its messages, where files may have come with them."""
    if not _media(data_dir, session).is_dir():
        return set()
    try:
        opened, _ = archive.opened(data_dir, name)
    except FileNotFoundError:
        return set()
    try:
        messages = (record.event for record in opened.backwards() if isinstance(record.event, User))
        return {message.id for message in messages if message.id}
    finally:
        opened.close()
