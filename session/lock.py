"""One process writes: the data directory's lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from session.errors import StoreLocked


class DirectoryLock:
    """`flock` on `<data_dir>/lock`; the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock or raise `StoreLocked` with what the holder wrote about itself."""
        fd = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
            os.close(fd)
            raise StoreLocked(str(self._data_dir), holder) from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()}\n".encode(), 0)
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Let go; calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def reading(data_dir: Path) -> Iterator[None]:
    """Keep writers out while something is read that must not change; raises `StoreLocked` where one is in.

    Makes no file: where nobody has ever written, or only for somebody else to read, nobody is kept out.
    """
    try:
        fd = os.open(data_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
            raise StoreLocked(str(data_dir), holder) from None
        yield
    finally:
        os.close(fd)
