"""Where the Unix socket is: computed alike by the daemon and by its clients."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from channels.errors import ChannelError

LONGEST = 107  # bytes of sun_path on Linux, without its NUL


class SocketPathTooLong(ChannelError):
    """The configured path does not fit into a socket address."""


class UnsafeDirectory(ChannelError):
    """The fallback directory in /tmp belongs to somebody else, or others may write to it."""


def socket_path(configured: Path | None, data_dir: Path) -> Path:
    """The configured path, else `<data_dir>/lunar.sock`, else a short one that stands for the directory.

    Raises `SocketPathTooLong` for a configured path of more than 107 bytes.
    """
    if configured is not None:
        if len(os.fsencode(configured)) > LONGEST:
            raise SocketPathTooLong(
                f"channels.cli.socket: {configured} has {len(os.fsencode(configured))} bytes, "
                f"a socket's path may have at most {LONGEST}; choose a shorter one"
            )
        return configured
    default = data_dir / "lunar.sock"
    if len(os.fsencode(default)) <= LONGEST:
        return default
    name = f"lunar-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and len(os.fsencode(runtime)) + 1 + len(name) <= LONGEST:
        return Path(runtime, name)
    return Path(f"/tmp/lunar-{os.getuid()}", name)


def prepare_directory(socket: Path) -> None:
    """Make the socket's directory (0700); raises `UnsafeDirectory` where the fallback is not ours alone."""
    directory = socket.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory == Path(f"/tmp/lunar-{os.getuid()}"):
        status = directory.lstat()
        mine = status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode)
        if not mine or status.st_mode & 0o077:
            raise UnsafeDirectory(f"{directory} is not a directory of this user alone (0700); remove it")
