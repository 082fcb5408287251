"""`lunar sessions tail`: the end of a transcript, and what is added to it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gateway import config_file
from gateway.verbs.sessions.finding import disk, expected, find
from gateway.verbs.sessions.printing import printable, printable_json, readable
from session import archive, ids
from session.errors import BadCursor
from session.events import Record
from session.ids import SessionId
from session.transcript import Transcript

_LOOK_EVERY = 0.2  # seconds
_PAGE = 256


def main(config: str | None, session: str, lines: int, follow: bool, as_json: bool) -> int:
    """Print the last events; with `follow` go on until Ctrl-C, also with a session that is yet to be made.

    Raises `NoSuchSession`, `Unreadable`.
    """
    data_dir = config_file.load(config).data_dir
    with disk():
        id = expected(data_dir, session) if follow else find(data_dir, session)
        for record in _records(data_dir, id, lines, follow):
            line = printable_json(record.json()) if as_json else printable(readable(record.event))
            print(line, flush=follow)
    return 0


def _records(data_dir: Path, session: SessionId, last: int, follow: bool) -> Iterator[Record]:
    place = _Place(data_dir, ids.file_name(session))
    yield from place.last(last)
    while follow:
        yield from place.news()
        time.sleep(_LOOK_EVERY)


class _Place:
    """How far one reader has come in a file that grows, is deleted and made again, or goes to the archive."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self._data_dir = data_dir
        self._name = name
        self._plain = data_dir / "sessions" / name
        self._cursor: str | None = None
        self._known: tuple[int, int] | None = None  # inode and size at the last look

    def last(self, number: int) -> list[Record]:
        """The last events there are."""
        try:
            transcript, _ = archive.opened(self._data_dir, self._name)
        except FileNotFoundError:
            return []
        try:
            self._cursor = transcript.cursor()
            return transcript.before(None, number)
        finally:
            transcript.close()

    def news(self) -> Iterator[Record]:
        """What was added since the last call; of a file made anew, all of it."""
        try:
            status = self._plain.stat()
            if (status.st_ino, status.st_size) == self._known:
                return
            transcript = Transcript(self._plain, writable=False)
        except FileNotFoundError:
            return  # not made yet, deleted, or in the archive: nothing is said there
        self._known = status.st_ino, status.st_size
        try:
            while records := self._after(transcript):
                yield from records
        finally:
            transcript.close()

    def _after(self, transcript: Transcript) -> list[Record]:
        try:
            records = transcript.after(self._cursor, _PAGE)
        except BadCursor:
            print("(deleted, and begun anew)", file=sys.stderr, flush=True)
            self._cursor = None
            records = transcript.after(None, _PAGE)
        if records:
            self._cursor = records[-1].cursor
        return records
