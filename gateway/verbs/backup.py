"""`lunar backup`: a copy of everything that must not be lost, consistent while the gateway runs.

Nothing is asked of the gateway: what it has acknowledged is on the disk, and what it adds meanwhile is
added behind that. So each file up to its last whole line is a state that it really had, and holds all that
was acknowledged before the backup began. Files that are replaced by renaming are whole at any time.
"""

from __future__ import annotations

import os
import stat
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from gateway import __version__, config_file
from gateway.errors import BadArgument, CannotCreate, Unreadable
from gateway.verbs.sessions.finding import disk
from gateway.verbs.sessions.printing import count, size
from gateway.verbs.sessions.progress import bar
from session import archive, ids
from session.directory import sync_directory
from session.events import now
from session.transcript import BLOCK

MANIFEST = "manifest.json"
ASIDE = "before-restore-"
STAGING = ".restoring"
# Of this very process or this disk, or made anew from the rest where it is missing. `open.log` could name
# too few of the sessions in the copy: without one, the next start looks at every session.
LEFT_OUT = frozenset({"lock", "open.log", "probe", "index", STAGING, MANIFEST})
_UNFINISHED = (".new", ".part")
_ENDINGS = (".tar.gz", ".tgz")


class Copied(NamedTuple):
    """One file of a backup: its path in the data directory, its bytes and their CRC-32."""

    name: str
    size: int
    crc: int


class Manifest(msgspec.Struct):
    """What a backup holds; written last, so that one without it is incomplete."""

    version: str
    created: str
    files: list[Copied]
    format: int = 1


class Target(Protocol):
    """Where the copies go."""

    def add(self, name: str, status: os.stat_result, size: int, source: Source) -> None:
        """Keep so many bytes under this name."""


class Source:
    """The first `left` bytes of a file, and the CRC-32 of those that were read."""

    def __init__(self, file: BinaryIO, left: int, advance: Callable[[int], None]) -> None:
        self.crc = 0
        self._file = file
        self._left = left
        self._advance = advance

    def read(self, number: int = BLOCK) -> bytes:
        """At most so many more of them, none at their end; raises `OSError` where the file ends before."""
        wanted = min(number, self._left)
        data = self._file.read(wanted)
        if len(data) < wanted:
            raise OSError("a file was cut while it was copied; please try again")
        self._left -= len(data)
        self.crc = zlib.crc32(data, self.crc)
        self._advance(len(data))
        return data


def main(config: str | None, target: str) -> int:
    """Write the backup; raises `BadArgument`, `CannotCreate`, `Unreadable`."""
    settings = config_file.load(config)
    if settings.store.url is not None:
        raise BadArgument(
            "The sessions are in a database: back it up with pg_dump, and copy the folder "
            f"{settings.data_dir / 'media'} beside it."
        )
    data_dir = settings.data_dir
    path = Path(os.path.abspath(target))
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(data_dir)):
        raise BadArgument(f"{path} is inside the data directory: choose a place outside.")
    if not (data_dir / "sessions").is_dir():
        raise Unreadable(f"{data_dir} holds no sessions: there is nothing to back up.")
    with disk(), _made(path) as to:
        copied = _copy(data_dir, to)
    transcripts = [file for file in copied if file.name.endswith((ids.SUFFIX, archive.ENDING))]
    sessions = [file for file in transcripts if file.name.startswith(("sessions/", "archive/"))]
    others = len(copied) - len(sessions)
    total = sum(file.size for file in copied)
    print(
        f"{count(len(sessions), 'session')} and {count(others, 'other file')}, {size(total)}, are in {path}."
    )
    return 0


# -- what is copied --------------------------------------------------------------------------------


def _copy(data_dir: Path, to: Target) -> list[Copied]:
    total = _bytes(data_dir) if sys.stderr.isatty() else 0
    with bar("Backing up", total, bytes=True) as advance:
        copied: dict[str, Copied] = {}
        for _ in range(2):  # once more, for what was renamed or archived while it was looked for
            for name in _names(data_dir):
                if name not in copied and (file := _copy_file(data_dir, name, to, advance)):
                    copied[name] = file
    manifest = msgspec.json.encode(Manifest(__version__, now(), list(copied.values())))
    _add_text(to, manifest)
    return list(copied.values())


def _names(data_dir: Path) -> Iterator[str]:
    """Every file that belongs into a backup. The archive comes first and last: a session that is brought
    back meanwhile is met among the transcripts, one that is archived meanwhile at the end.
    """
    archived = sorted(entry.name for entry in archive.names(data_dir))
    yield from (f"{archive.FOLDER}/{name}" for name in archived)
    tops = {entry.name for entry in os.scandir(data_dir)} - LEFT_OUT
    folders = sorted(name for name in tops if (data_dir / name).is_dir() and not name.startswith(ASIDE))
    # What channels know beside (groups that moved, files that were sent) is noted before the message that
    # needs it is stored: so it is copied after the transcripts.
    for top in sorted(folders, key=lambda name: (name == archive.FOLDER, name != "sessions", name)):
        for folder, below, files in os.walk(data_dir / top):
            below.sort()
            place = Path(folder).relative_to(data_dir)
            yield from (str(place / name) for name in sorted(files) if not name.endswith(_UNFINISHED))
    yield from (name for name in sorted(tops - {*folders}) if not name.endswith(_UNFINISHED))
    # A session that was in the archive at first may have been brought back too late to be met.
    yield from (f"sessions/{name.removesuffix(archive.ENDING)}" for name in archived)


def _bytes(data_dir: Path) -> int:
    """About how much there is to copy, for the bar."""
    return sum(_status(data_dir / name).st_size for name in set(_names(data_dir)))


def _status(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except FileNotFoundError:
        return os.stat_result((0,) * 10)


def _copy_file(data_dir: Path, name: str, to: Target, advance: Callable[[int], None]) -> Copied | None:
    """None for what is gone, and for what is no file: a socket, a link."""
    path = data_dir / name
    if not stat.S_ISREG(_status(path).st_mode):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        end = _whole_lines(fd, status.st_size) if name.endswith(ids.SUFFIX) else status.st_size
        source = Source(file, end, advance)
        to.add(name, status, end, source)
        return Copied(name, end, source.crc)


def _whole_lines(fd: int, end: int) -> int:
    """Where the last whole line ends: what follows is just being written."""
    while end:
        begin = max(0, end - BLOCK)
        newline = os.pread(fd, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _add_text(to: Target, text: bytes) -> None:
    with open(os.memfd_create(MANIFEST), "w+b") as file:
        file.write(text)
        file.seek(0)
        to.add(MANIFEST, os.fstat(file.fileno()), len(text), Source(file, len(text), lambda _: None))


# -- where it goes ---------------------------------------------------------------------------------


@contextmanager
def _made(path: Path) -> Iterator[Target]:
    """The backup under another name until it is complete and on the disk."""
    beside = path.with_name(f"{path.name}.part")
    if os.path.lexists(path):
        raise CannotCreate(f"{path} is there already: choose another name.")
    make = _tar if path.name.endswith(_ENDINGS) else _folder
    try:
        with make(beside) as target:
            yield target
    except FileExistsError as error:
        raise CannotCreate(f"{beside} is there, of a backup that was broken off: remove it.") from error
    except BaseException:
        beside.unlink() if beside.is_file() else rmtree(beside, ignore_errors=True)
        raise
    os.rename(beside, path)
    sync_directory(path.parent)


@contextmanager
def _tar(path: Path) -> Iterator[Target]:
    with _creating():
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w+b") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:
            yield _Tar(tar)
        file.flush()
        os.fsync(fd)


@contextmanager
def _folder(path: Path) -> Iterator[Target]:
    with _creating():
        path.mkdir(mode=0o700)
    yield _Folder(path)
    os.sync()  # one by one, a hundred thousand small files would take an hour


@contextmanager
def _creating() -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise CannotCreate(f"{error.filename}: {error.strerror}") from error


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def add(self, name: str, status: os.stat_result, size: int, source: Source) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, int(status.st_mtime), 0o600
        self._tar.addfile(info, source)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, status: os.stat_result, size: int, source: Source) -> None:
        write_file(self._path, name, source.read)
        os.utime(self._path / name, ns=(status.st_mtime_ns, status.st_mtime_ns))


def write_file(folder: Path, name: str, read: Callable[[], bytes]) -> None:
    """Make a file of all that `read` gives, and the folders on the way; raises `FileExistsError`."""
    path = folder / name
    for above in reversed(
        path.relative_to(folder).parents[:-1]
    ):  # `parents=True` makes them without the mode
        (folder / above).mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        while data := read():
            file.write(data)
