"""The sessions of a data directory as its files tell them, with or without a running daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from session import ids
from session.errors import BadSessionId, SessionError
from session.events import System, User
from session.ids import SessionId
from session.transcript import Transcript, sync_directory


class Entry(NamedTuple):
    """One line of the listing: bytes on disk and the time of the last change, in seconds since the epoch."""

    session: SessionId
    size: int
    modified: float


def id_of(path: Path) -> SessionId:
    """The session id of a transcript's file; of a shortened name, from the header in its first line."""
    if not ids.is_shortened(path.name):
        return ids.from_file_name(path.name)
    transcript = Transcript(path, writable=False)
    try:
        first = transcript.after(None, 1)
    finally:
        transcript.close()
    header = first[0].event if first else None
    named = header.content if isinstance(header, System) and header.name == "session" else None
    if named and ids.file_name(named) == path.name:
        return SessionId(named)
    raise BadSessionId(f"{path.name} has no header that names its session")


def entries(data_dir: Path) -> Iterator[Entry]:
    """Every session of a data directory, in no order; reads names, sizes and times, not contents.

    Files whose names are no session's are passed over.
    """
    try:
        directory = os.scandir(data_dir / "sessions")
    except FileNotFoundError:
        return
    with directory:
        for entry in directory:
            if not entry.name.endswith(ids.SUFFIX):
                continue
            try:
                short = ids.is_shortened(entry.name)
                session = id_of(Path(entry.path)) if short else ids.from_file_name(entry.name)
                status = entry.stat()
            except (SessionError, OSError):
                continue
            yield Entry(session, status.st_size, status.st_mtime)


def remove(data_dir: Path, session: SessionId) -> bool:
    """Delete a session from the disk: what people sent, transcript, torn tails; False where there is none."""
    folder, name = data_dir / "sessions", ids.file_name(session)
    found = False
    _remove_media(data_dir, session, folder / name)
    for path in [folder / name, *folder.glob(f"{name}.torn-*")]:
        try:
            path.unlink()
            found = True
        except FileNotFoundError:
            continue
    if found:
        sync_directory(folder)
    return found


def _remove_media(data_dir: Path, session: SessionId, transcript: Path) -> None:
    """Delete the files that came with the session's messages: `media/<provider>/<message id>.<ending>`."""
    media = data_dir / "media" / ids.parse(session)[1].provider
    if not media.is_dir() or not transcript.exists():
        return
    opened = Transcript(transcript, writable=False)
    try:
        said = {record.event.id for record in opened.backwards() if isinstance(record.event, User)}
    finally:
        opened.close()
    for path in media.iterdir():
        if path.name.partition(".")[0] in said:
            path.unlink(missing_ok=True)
