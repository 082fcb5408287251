"""`open.log`: which sessions may have something open, so that a start reads only those.

It may name too many sessions, never too few. `+name` is on disk before the message that opened the
session is acknowledged; `-name` is written without waiting, some time after the last turn was closed.
Each line ends with its CRC-32: a changed byte may make a name another's, and somebody would wait for ever.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from session.directory import sync_directory
from session.errors import StorageError

_HEADER = b"lunar open 2\n"
_LARGE = 1 << 20  # bytes; then the log is written anew, unless that would not make it half as large
_NAME = re.compile(r"[a-z0-9_.%A-F~-]+\.jsonl\Z")  # what `ids.file_name` can make: nothing else goes in


class OpenLog:
    """The hints of one data directory. Synchronous; the store calls it from one thread at a time."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "open.log"
        self._fd = -1
        self._size = self._compacted = 0
        self.names: set[str] = set()  # the transcripts hinted at
        self.rebuilt = False  # set by `load` when the file was missing or damaged

    def load(self) -> None:
        """Read what is hinted at and compact the log; a missing or damaged one names every transcript."""
        names = self._read()
        if names is None:
            self.rebuilt = True
            names = self._every_name()
        self.names = names
        self._compact()

    def _read(self) -> set[str] | None:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        *lines, rest = raw.split(b"\n")
        if not lines or lines[0] + b"\n" != _HEADER:
            return None
        if len(rest.partition(b" ")[2]) >= 8:
            return None  # a whole line without its end was not torn off: it is damaged
        names: set[str] = set()
        for line in lines[1:]:
            sign, name = line[:1], line[1:].partition(b" ")[0].decode("ascii", "replace")
            if sign not in (b"+", b"-") or not _NAME.match(name) or line + b"\n" != _line(sign, name):
                return None
            (names.add if sign == b"+" else names.discard)(name)
        return names

    def _every_name(self) -> set[str]:
        with os.scandir(self._path.parent / "sessions") as entries:
            return {entry.name for entry in entries if _NAME.match(entry.name)}

    def _compact(self, more: Iterable[str] = ()) -> None:
        fresh = self._path.with_suffix(".log.new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            names = self.names.union(more)
            block = _HEADER + b"".join(_line(b"+", name) for name in sorted(names))
            _write_whole(fd, block)
            os.fsync(fd)
            os.rename(fresh, self._path)
            sync_directory(self._path.parent)
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd, self._size, self._compacted = fd, len(block), len(block)

    def add(self, *names: str) -> None:
        """Hint at these transcripts, and return when that is on disk; raises `StorageError`."""
        new = [name for name in names if name not in self.names]
        if not new:
            return
        try:
            if self._fd < 0 or self._is_large() or not os.fstat(self._fd).st_nlink:
                self._compact(new)
            else:
                self._append(b"".join(_line(b"+", name) for name in new))
                os.fdatasync(self._fd)
        except OSError as error:
            self.close()  # the next hint writes the log anew: a failed fdatasync is never tried again
            raise StorageError(error.errno, f"open.log: {error.strerror or error}") from error
        self.names.update(new)

    def _is_large(self) -> bool:
        return self._size > max(_LARGE, 2 * self._compacted)

    def remove(self, name: str) -> None:
        """Say that this one has nothing open; lost in a crash, it costs the next start one look."""
        self.names.discard(name)
        try:
            if self._fd >= 0:
                self._append(_line(b"-", name))
        except OSError:
            self.close()

    def _append(self, block: bytes) -> None:
        _write_whole(self._fd, block)
        self._size += len(block)

    def close(self) -> None:
        """Give the descriptor back; calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _line(sign: bytes, name: str) -> bytes:
    said = sign + name.encode()
    return b"%b %08x\n" % (said, zlib.crc32(said))


def _write_whole(fd: int, block: bytes) -> None:
    if os.write(fd, block) != len(block):
        raise OSError(errno.EIO, "short write")
