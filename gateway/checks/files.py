"""The configuration file, the data directory, the disk below it, and the Unix socket."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gateway.checks.finding import Finding, Scene, ok, problem, warning

FULL = 64 << 20  # bytes; below it a day of talk, or one large file, may not fit
SCARCE = 1 << 30
_LOOKED_AT = 1000  # transcripts whose owner is looked at
_SHELLS_NAMES = ("OPENAI_API_KEY", "TELEGRAM_BOT_TOKEN", "LUNAR_")


def config_file(scene: Scene) -> Iterator[Finding]:
    """Whether others may change the file, and whether one lies there that is not read."""
    file = scene.places.file
    if file is None:
        yield ok("no file: the built-in defaults")
    else:
        mode = file.stat().st_mode
        if mode & (stat.S_IWOTH | stat.S_IWGRP):
            who = "everybody" if mode & stat.S_IWOTH else "its group"
            yield warning(f"{file}: {who} may change it, and so what runs as you", f"chmod go-w {file}")
        else:
            yield ok(str(file))
    for name in ("config.yml", "config.yaml.txt", "lunar.yaml"):
        if file is None and Path(name).is_file():
            yield warning(f"{name} is not read: the name is config.yaml", f"mv {name} config.yaml")
    yield from _shell_file()


def _shell_file() -> Iterator[Finding]:
    try:
        lines = Path(".env").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    names = [line.removeprefix("export ").partition("=")[0].strip() for line in lines if "=" in line]
    if unread := [name for name in names if name.startswith(_SHELLS_NAMES) and name not in os.environ]:
        yield warning(
            f".env holds {unread[0]}, and is not read by the gateway",
            "set -a; . ./.env; set +a; then start it",
        )


def data(scene: Scene) -> Iterator[Finding]:
    """Whether transcripts can be written, by us, and read by nobody else."""
    directory = scene.config.data_dir
    if scene.running is not None:
        yield ok(f"{directory}, which the running gateway writes")
        return
    nearest = _nearest(directory)
    if not nearest.is_dir():
        yield problem(
            f"{scene.key('data_dir')}: {nearest} is not a directory",
            f"choose another data_dir, or move {nearest} away",
            os.EX_CANTCREAT,
        )
        return
    if why := _unwritable(nearest):
        owner = _owner(nearest)
        yield problem(
            f"{scene.key('data_dir')}: {nearest} belongs to {owner}, and cannot be written ({why})",
            f"run the gateway as {owner}, or: sudo chown -R {_me()} {nearest}, or choose another data_dir",
            os.EX_CANTCREAT,
        )
        return
    if nearest != directory:
        yield ok(f"{directory}, which will be made")
        return
    yield from _private(directory)


def _private(directory: Path) -> Iterator[Finding]:
    status = directory.stat()
    if os.geteuid() == 0 and status.st_uid != 0:
        owner = _owner(directory)
        yield warning(
            f"{directory} belongs to {owner}, who cannot write what a gateway of root leaves there",
            f"start it as {owner}: sudo -u {owner} lunar run",
        )
    if foreign := _foreign(directory):
        yield problem(
            f"{foreign} belongs to {_owner(foreign)} and cannot be written by this user",
            f"sudo chown -R {_me()} {directory}",
            os.EX_CANTCREAT,
        )
    elif status.st_mode & 0o077:
        yield warning(
            f"{directory}: others may look into it, and it holds what people say", f"chmod 700 {directory}"
        )
    else:
        yield ok(str(directory))


def _foreign(directory: Path) -> Path | None:
    """Something of the store that this user cannot write: left by a gateway that root started, mostly."""
    inside = [directory / "lock", directory / "open.log", directory / "sessions"]
    if (directory / "sessions").is_dir():
        with os.scandir(directory / "sessions") as entries:
            inside += [Path(entry.path) for entry in islice(entries, _LOOKED_AT)]
    return next((path for path in inside if path.exists() and not os.access(path, os.W_OK)), None)


def _unwritable(directory: Path) -> str | None:
    """Why no file can be made there; tried, because a file system knows more reasons than its modes show."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"lunar check\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return None  # that is the disk's line
        return error.strerror or str(error)
    return None


def disk(scene: Scene) -> Iterator[Finding]:
    """Whether there is room below the data directory, in bytes and in files."""
    directory = _nearest(scene.config.data_dir)
    figures = os.statvfs(directory)
    free = figures.f_bavail * figures.f_frsize
    room = f"{free / 2**30:.1f} GiB free" if free >= 2**30 else f"{free / 2**20:.0f} MiB free"
    fix = f"free some space on the disk of {directory}, or choose another data_dir"
    if not figures.f_blocks:
        yield ok("a file system without a size")
    elif free < FULL:
        yield problem(f"{directory}: the disk is full ({room}): no message can be stored", fix, os.EX_IOERR)
    elif figures.f_files and figures.f_favail < 100:
        yield problem(f"{directory}: the disk has room for {figures.f_favail} more files", fix, os.EX_IOERR)
    elif free < SCARCE:
        yield warning(f"{directory}: the disk is nearly full ({room})", fix)
    else:
        yield ok(room)


def socket(scene: Scene) -> Iterator[Finding]:
    """Whether the Unix socket can be made where it is configured."""
    path = scene.config.socket
    if unknown := list(_strangers(scene)):
        yield from unknown
        return
    if scene.running is not None:
        yield ok(f"{path}, where the running gateway answers")
        return
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        yield problem(
            f"{path} is there already, and is no socket",
            "move it away, or choose another channels.cli.socket",
            os.EX_CANTCREAT,
        )
        return
    parent = _nearest(path.parent)
    in_data = path.parent == scene.config.data_dir  # whose own line says what is wrong with it
    if not in_data and (why := _unwritable(parent)):
        yield problem(
            f"{path}: no socket can be made in {parent} by this user ({why})",
            f"choose another channels.cli.socket, or: sudo chown {_me()} {parent}",
            os.EX_CANTCREAT,
        )
        return
    yield ok(str(path))


def _strangers(scene: Scene) -> Iterator[Finding]:
    """Users and groups of the configuration that this machine does not have."""
    cli = scene.config.channels.cli
    groups = [("group", cli.group, grp.getgrnam, "groupadd --system")] if cli.group else []
    users = [("operators", name, pwd.getpwnam, "useradd") for name in cli.operators]
    for key, name, look_up, command in (*groups, *users):
        try:
            _ = name.isdecimal() or look_up(name)
        except KeyError:
            where = scene.key("channels", "cli", key)
            text = f"{where}: this machine has no {'group' if key == 'group' else 'user'} {name!r}"
            yield problem(text, f"correct the name, or: sudo {command} {name}", os.EX_CONFIG)


def _nearest(path: Path) -> Path:
    """The path itself, or what is nearest above it and exists."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _owner(path: Path) -> str:
    return _name(path.stat().st_uid)


def _me() -> str:
    return _name(os.geteuid())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
