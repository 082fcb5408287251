"""One process writes: the data directory's lock."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from session.errors import StoreLocked

_LETTING_GO = 1.0  # seconds that a lock is waited for whose holder is dead
_AGAIN = 0.01  # seconds until it is tried again


class DirectoryLock:
    """`flock` on `<data_dir>/lock`; the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock or raise `StoreLocked` with what the holder wrote about itself."""
        fd = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(fd, fcntl.LOCK_EX, self._data_dir)
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
        _take(fd, fcntl.LOCK_SH, data_dir)
        yield
    finally:
        os.close(fd)


def _take(fd: int, how: int, data_dir: Path) -> None:
    """Lock it so, or raise `StoreLocked`.

    A child that a process was just starting when it was killed has the lock, too, until it runs its own
    program: whoever starts again at once waits for that.
    """
    ends = time.monotonic() + _LETTING_GO
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
            if _lives(holder) or time.monotonic() >= ends:
                raise StoreLocked(str(data_dir), holder) from None
            time.sleep(_AGAIN)
        else:
            return


def _lives(holder: str) -> bool:
    """Whether the process is there; where it is another machine's or container's, that is not known."""
    try:
        os.kill(int(holder.removeprefix("process ")), 0)
    except PermissionError:
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        return False  # or it has not written yet who it is
    return True
