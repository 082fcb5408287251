"""`lunar sessions export`: a conversation as a document of its own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TextIO

from gateway import config_file
from gateway.errors import BadArgument, CannotCreate
from gateway.verbs.sessions import source
from gateway.verbs.sessions.finding import disk, events, find
from gateway.verbs.sessions.progress import bar
from gateway.verbs.sessions.source import Source
from session.directory import sync_directory
from session.events import Event
from session.ids import SessionId

FORMATS = ("md", "json", "html")
Said = Iterator[tuple[Event, bytes]]
Writer = Callable[[SessionId, Said], Iterable[str]]


def main(config: str | None, session: str, format: str | None, output: str | None) -> int:
    """Write one conversation to a file or to stdout; raises `NoSuchSession`, `Unreadable`, `CannotCreate`."""
    at = source.of(config_file.load(config))
    write = _writer(format or _format_of(output))
    with disk():
        id = find(at, session)
        with bar("Exporting", _size(at, id), bytes=True) as advance:
            text = write(id, _told(events(at, id), advance))
            if output is None or output == "-":
                _write(sys.stdout, text)
            else:
                _save(Path(output), text)
    return 0


def _writer(format: str) -> Writer:
    write: Writer = import_module(f"gateway.verbs.sessions.export_{format}").pieces
    return write


def _format_of(output: str | None) -> str:
    ending = Path(output or "").suffix.removeprefix(".")
    if output in (None, "-") or ending in ("markdown", "txt"):
        return "md"
    if ending not in FORMATS:
        raise BadArgument(f"Which format? Say --format, or name the file with .{', .'.join(FORMATS)}.")
    return ending


def _size(at: Source, session: SessionId) -> int:
    transcript, _ = at.opened(session)
    try:
        return transcript.end
    finally:
        transcript.close()


def _told(said: Said, advance: Callable[[int], None]) -> Said:
    for event, line in said:
        yield event, line
        advance(len(line))


def _write(file: TextIO, text: Iterable[str]) -> None:
    for piece in text:
        file.write(piece.encode("utf-8", "replace").decode())  # lone surrogates are in no document


def _save(path: Path, text: Iterable[str]) -> None:
    """Write the whole file or none; what a conversation says is for its owner's eyes."""
    if path.exists() and not path.is_file():
        raise CannotCreate(f"{path} is no file: choose another name.")
    try:
        fd, beside = tempfile.mkstemp(".part", f"{path.name}.", path.parent)
    except OSError as error:
        raise CannotCreate(f"{path}: {error.strerror or error}") from error
    try:
        with open(fd, "w", encoding="utf-8", newline="\n") as file:
            _write(file, text)
            file.flush()
            os.fsync(fd)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    sync_directory(path.parent)
