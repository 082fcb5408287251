"""One session's file: durable append, reading from either end, repair of a torn tail.

Everything here is synchronous and knows nothing of asyncio; `session.store` calls it from threads.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from session import events
from session.directory import sync_directory
from session.errors import BadCursor, StorageError
from session.events import BadLine, Event, Record

BLOCK = 64 * 1024


class Report(NamedTuple):
    """What opening or verifying found: whole lines, bad ones, and the length of a torn tail in bytes."""

    lines: int
    bad: tuple[int, ...]
    torn: int


class Transcript:
    """One open file.

    `end` is where the last whole line ends; bytes behind it do not exist for anybody. With `writable`
    the opener must hold the data directory's lock: a torn tail is cut off and kept beside the file, an
    unfinished line that parses is completed. Otherwise nothing is changed. `header` is written before
    the first event of an empty file; a missing file is made where `create`. `cut`: the `uncut` of the
    one before, whose failed append is still to be taken back. `content`: what a file that is not there
    would hold, for reading.
    """

    def __init__(
        self,
        path: Path,
        *,
        writable: bool,
        header: Event | None = None,
        create: bool = True,
        cut: int | None = None,
        content: Iterable[bytes] | None = None,
    ) -> None:
        self.path = path
        self.end = self._synced = 0
        self.torn = 0  # bytes that opening cut off
        self.broken = False  # set by a failed append: nobody may append until the file is opened anew
        self.sync_seconds = 0.0  # what the last append waited for the disk
        self.uncut: int | None = None  # set where a failed append could not be taken back: the end to cut at
        self._header = header
        self._tag = ""
        if content is None:
            self._fd = self._open(writable, create=create and header is not None)
        else:
            self._fd = _memory(content)
        try:
            if cut is not None:
                self._cut(min(cut, os.fstat(self._fd).st_size))
            size = os.fstat(self._fd).st_size
            if writable and not size:
                sync_directory(path.parent)  # it may be of this moment, or of a start that failed right here
            self.end = self._whole_end(size)
            if writable and self.end < size:
                self._repair(size)
            self._synced = self.end
        except BaseException:
            self.close()
            raise

    def _open(self, writable: bool, *, create: bool) -> int:
        if not writable:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.path, flags | os.O_CREAT if create else flags, 0o600)

    def close(self) -> None:
        """Give the descriptor back; calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- writing ---------------------------------------------------------------------------------

    def append(self, batch: list[Event], *, sync: bool = True) -> list[Record]:
        """Write the events as one block of lines and wait for the disk (unless not `sync`).

        Raises `StorageError`; then none of them is stored.
        """
        if self.broken:
            raise StorageError(errno.EIO, f"{self.path.name}: must be opened anew after a failed append")
        lines = [events.encode(event) for event in batch]
        header = [events.encode(events.stamped(self._header))] if self._header and not self.end else []
        block = b"".join(header + lines)
        keep: int | None = None  # where the file must end if this fails; None: nothing is written yet
        try:
            self._check()
            keep = self.end
            if os.write(self._fd, block) != len(block):
                raise OSError(errno.EIO, "short write")
            if sync:
                # After a failed fdatasync the kernel may call pages clean that never reached the disk:
                # only what an earlier one confirmed can be kept.
                keep = self._synced
                began = perf_counter()
                os.fdatasync(self._fd)
                self.sync_seconds = perf_counter() - began
        except OSError as error:
            self._undo(keep)
            raise StorageError(error.errno, f"{self.path.name}: {error.strerror or error}") from error
        if not self.end:
            self._tag = self._tag_of(block)
        start = self.end + sum(map(len, header))
        self.end += len(block)
        if sync:
            self._synced = self.end
        return list(self._records(lines, batch, start))

    def _check(self) -> None:
        """Notice what other programs did to the file, before anything is written at a wrong place."""
        status = os.fstat(self._fd)
        if not status.st_nlink:
            raise OSError(errno.ENOENT, "the file was deleted while it was open")
        if status.st_size != self.end:
            raise OSError(errno.EBUSY, "another program changed the file while it was open")
        self._cursor(0)  # it may have to read, and that may fail: not when the events are stored already

    def _records(self, lines: list[bytes], batch: list[Event], start: int) -> Iterator[Record]:
        for line, event in zip(lines, batch, strict=True):
            start += len(line)
            yield Record(self._cursor(start), event, line[:-1])

    def _undo(self, keep: int | None) -> None:
        """Take a failed append back. The descriptor stays for those who are reading."""
        self.broken = True
        if keep is None:
            return
        self.end = self._synced = keep
        try:
            self._cut(keep)
        except OSError:
            self.uncut = keep

    def _cut(self, end: int) -> None:
        os.ftruncate(self._fd, end)
        with suppress(OSError):
            # Or a loss of power may leave what is written next with the end of what was refused.
            os.fdatasync(self._fd)

    # -- opening ---------------------------------------------------------------------------------

    def _whole_end(self, size: int) -> int:
        position = size
        while position > 0:
            begin = max(0, position - BLOCK)
            newline = os.pread(self._fd, position - begin, begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            position = begin
        return 0

    def _repair(self, size: int) -> None:
        tail = _pread(self._fd, size - self.end, self.end)
        try:
            events.decode(tail)
        except BadLine:
            self.torn = len(tail)
            self._keep_torn(tail)
            os.ftruncate(self._fd, self.end)
        else:
            if os.write(self._fd, b"\n") != 1:
                raise StorageError(errno.EIO, f"{self.path.name}: the last line could not be completed")
            self.end = size + 1
        os.fdatasync(self._fd)

    def _keep_torn(self, tail: bytes) -> None:
        kept = f"{self.path}.torn-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        fd = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, tail) != len(tail):
                raise StorageError(errno.EIO, f"{self.path.name}: the torn last line could not be kept")
            os.fsync(fd)
            sync_directory(self.path.parent)
        except BaseException:
            os.unlink(kept)
            raise
        finally:
            os.close(fd)

    # -- cursors ---------------------------------------------------------------------------------

    def _cursor(self, position: int) -> str:
        if not self._tag and self.end:
            self._tag = self._tag_of(os.pread(self._fd, min(512, self.end), 0))
        return f"{position:x}.{self._tag or self._tag_of(b'')}"

    def _tag_of(self, beginning: bytes) -> str:
        # What tells this file's cursors from any other's, also from a deleted namesake's: its name and the
        # beginning of its first line, which holds the time of its creation and never changes.
        first = beginning[:512].split(b"\n", 1)[0]
        return f"{zlib.crc32(first, zlib.crc32(self.path.name.encode())):08x}"

    def cursor(self) -> str:
        """The cursor after the last event."""
        return self._cursor(self.end)

    def position(self, cursor: str) -> int:
        """The place that a cursor names; raises `BadCursor` where it is not of this file."""
        try:
            position = int(cursor.partition(".")[0], 16)
        except ValueError:
            raise BadCursor(f"{cursor!r} is not a cursor") from None
        inside = 0 <= position <= self.end
        if not inside or cursor != self._cursor(position) or not self._is_line_end(position):
            raise BadCursor(f"{cursor!r} is not a cursor of this session")
        return position

    def _is_line_end(self, position: int) -> bool:
        return position == 0 or os.pread(self._fd, 1, position - 1) == b"\n"

    # -- reading ---------------------------------------------------------------------------------

    def after(self, cursor: str | None, limit: int, until: str | None = None) -> list[Record]:
        """Up to `limit` events behind the cursor (None: from the first), oldest first, none past `until`."""
        position = 0 if cursor is None else self.position(cursor)
        end = self.end if until is None else self.position(until)
        records = (self._decoded(stop, line) for stop, line in self._lines(position, end))
        return list(islice((record for record in records if record is not None), limit))

    def before(self, cursor: str | None, limit: int) -> list[Record]:
        """Up to `limit` events up to and including the one that ends at the cursor, oldest first."""
        return list(islice(self.backwards(cursor), limit))[::-1]

    def backwards(
        self, cursor: str | None = None, on_bad: Callable[[int], object] | None = None
    ) -> Iterator[Record]:
        """Events from the cursor (None: the end) towards the beginning; `on_bad` gets bad lines' places."""
        stop = self.end if cursor is None else self.position(cursor)
        for line in self._lines_backwards(stop):
            record = self._decoded(stop, line)
            stop -= len(line) + 1
            if record is not None:
                yield record
            elif on_bad is not None and line:
                on_bad(stop)

    def verify(self) -> Report:
        """Read everything; `bad` has the numbers (from 1) of the lines that are no events."""
        count, bad = 0, []
        for count, (_, line) in enumerate(self._lines(0, self.end), 1):
            if line and self._decoded(0, line) is None:
                bad.append(count)
        return Report(count, tuple(bad), os.fstat(self._fd).st_size - self.end)

    def _decoded(self, stop: int, line: bytes) -> Record | None:
        try:
            return Record(self._cursor(stop), events.decode(line), line)
        except BadLine:
            return None

    def _lines(self, position: int, end: int) -> Iterator[tuple[int, bytes]]:
        pending: list[bytes] = []
        read = position
        while read < end:
            block = _pread(self._fd, min(BLOCK, end - read), read)
            read += len(block)
            *whole, rest = block.split(b"\n")
            for line in whole:
                if pending:
                    line = b"".join((*pending, line))
                    pending.clear()
                position += len(line) + 1
                yield position, line
            if rest:
                pending.append(rest)

    def _lines_backwards(self, stop: int) -> Iterator[bytes]:
        unread = stop - 1  # the newline at its end is the last line's
        pieces: list[bytes] = []  # of a line whose beginning is not read yet, last first
        while unread >= 0:
            size = min(BLOCK, unread)
            first, *whole = _pread(self._fd, size, unread - size).split(b"\n")
            for line in reversed(whole):
                pieces.append(line)
                yield b"".join(reversed(pieces))
                pieces.clear()
            pieces.append(first)
            unread -= size
            if not unread:
                yield b"".join(reversed(pieces))
                return


def _memory(content: Iterable[bytes]) -> int:
    """A file without a name, which is gone when it is closed."""
    fd = os.memfd_create("transcript", os.MFD_CLOEXEC)
    try:
        for piece in content:
            if os.write(fd, piece) != len(piece):
                raise StorageError(errno.ENOMEM, "a transcript does not fit into the memory")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _pread(fd: int, size: int, position: int) -> bytes:
    """Read exactly `size` bytes; a file that has become shorter raises `StorageError`."""
    data = os.pread(fd, size, position)
    while len(data) < size:
        more = os.pread(fd, size - len(data), position + len(data))
        if not more:
            raise StorageError(errno.EIO, "the file was cut while it was read: read it again")
        data += more
    return data
