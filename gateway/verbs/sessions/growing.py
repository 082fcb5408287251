"""A transcript's file that is read while it grows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from session import archive
from session.errors import BadCursor
from session.events import Record
from session.transcript import Transcript

BEGUN_ANEW = "(deleted, and begun anew)"
_PAGE = 256


class GrowingFile:
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
            print(BEGUN_ANEW, file=sys.stderr, flush=True)
            self._cursor = None
            records = transcript.after(None, _PAGE)
        if records:
            self._cursor = records[-1].cursor
        return records
