"""Whether a data directory's disk takes what is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write(data_dir: Path) -> None:
    """Write a little and wait for the disk; raises `OSError`, also where transcripts cannot be made."""
    path = data_dir / "probe"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, bytes(4096)) != 4096:
            raise OSError("short write")
        os.fdatasync(fd)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
    if not os.access(data_dir / "sessions", os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "the folder `sessions` is gone, or may not be written to")
