"""`lunar restore`: bring back what `lunar backup` made; what is in the way is moved aside, never deleted."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from shutil import rmtree
from typing import NamedTuple

import msgspec

from gateway import config_file
from gateway.errors import BadArgument, CannotCreate, Held, Unreadable
from gateway.verbs.backup import ASIDE, LEFT_OUT, MANIFEST, STAGING, Copied, Manifest, write_file
from gateway.verbs.sessions import spread, verify
from gateway.verbs.sessions.finding import disk, latest_first
from gateway.verbs.sessions.printing import count, printable
from gateway.verbs.sessions.progress import bar
from gateway.verbs.sessions.source import Files
from session.directory import sync_directory
from session.errors import StoreLocked
from session.lock import DirectoryLock
from session.transcript import BLOCK

_DERIVED = frozenset({"open.log", "probe"})


class _Member(NamedTuple):
    """A file of a backup: its name, when it was changed (Unix seconds), and what reads it."""

    name: str
    modified: float
    read: Callable[[], bytes]


def main(config: str | None, source: str, force: bool) -> int:
    """Unpack, verify, and put everything in its place; exits 1 where a transcript is damaged.

    Raises `Unreadable` where the backup is not whole, `CannotCreate` where the data directory holds something
    (without `force`), `Held`; then nothing is changed.
    """
    settings = config_file.load(config)
    if settings.store.url is not None:
        raise BadArgument(
            "The sessions are in a database: bring them back with pg_restore; a backup of files, once it is "
            "unpacked, with lunar sessions import."
        )
    data_dir = settings.data_dir
    with disk(), _locked(data_dir):
        if _present(data_dir) and not force:
            raise CannotCreate(
                f"{data_dir} is not empty: choose another data_dir, or move aside what is there with --force."
            )
        staging = data_dir / STAGING
        if staging.exists():
            rmtree(staging)  # of a restore that was broken off: copies, and their backup is still there
        staging.mkdir(mode=0o700)
        try:
            manifest = _unpacked(Path(source), staging)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            rmtree(staging)
            raise Unreadable(f"{source} is damaged, or no backup: {error}") from error
        except BaseException:
            rmtree(staging)
            raise
        damaged = _report(manifest, staging)
        os.sync()
        if aside := _exchange(data_dir, staging):
            print(f"What was there before is in {aside}.")
        _give_to_owner(data_dir)
    print("The next start looks at every session once, for messages that nobody has answered.")
    return 1 if damaged else 0


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    lock = DirectoryLock(data_dir)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    except StoreLocked as error:
        raise Held(f"A gateway is running: {error}. Stop it first.") from error
    except OSError as error:
        raise CannotCreate(f"{data_dir}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


# -- what is in a backup ---------------------------------------------------------------------------


def _unpacked(source: Path, to: Path) -> Manifest:
    found: dict[str, Copied] = {}
    text = b""
    for member in _members(source):
        if member.name == MANIFEST:
            text = b"".join(iter(member.read, b""))
            continue
        summed = _Summed(member.read)
        try:
            write_file(to, member.name, summed.read)
        except FileExistsError:
            raise Unreadable(f"{source} holds {printable(member.name)} twice.") from None
        os.utime(to / member.name, (member.modified, member.modified))
        found[member.name] = Copied(member.name, summed.size, summed.crc)
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"{source} is incomplete, or no backup: its {MANIFEST} is missing.") from error
    wrong = [file.name for file in manifest.files if found.pop(file.name, None) != file] + [*found]
    if wrong:
        named = ", ".join(map(printable, wrong[:5]))
        raise Unreadable(f"{source} is damaged: {count(len(wrong), 'file')} not as written ({named}).")
    return manifest


class _Summed:
    """Reads, and remembers how much that was and its CRC-32."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self.size = self.crc = 0
        self._read = read

    def read(self) -> bytes:
        data = self._read()
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)
        return data


def _members(source: Path) -> Iterator[_Member]:
    return _of_folder(source) if source.is_dir() else _of_tar(source)


def _of_tar(source: Path) -> Iterator[_Member]:
    with open(source, "rb") as file, bar("Restoring", source.stat().st_size, bytes=True) as advance:
        before = 0
        with tarfile.open(fileobj=file, mode="r:gz") as tar:
            for info in tar:
                name = _allowed(source, info.name)
                content = tar.extractfile(info) if info.isreg() else None
                if content is None:
                    raise Unreadable(f"{source} holds {printable(name)}, which is no file: it is no backup.")
                with content:
                    yield _Member(name, info.mtime, partial(content.read, BLOCK))
                advance(file.tell() - before)
                before = file.tell()


def _of_folder(source: Path) -> Iterator[_Member]:
    for folder, below, files in os.walk(source):
        below.sort()
        for file in sorted(files):
            path = Path(folder, file)
            name = _allowed(source, str(path.relative_to(source)))
            if path.is_symlink() or not path.is_file():
                raise Unreadable(f"{source} holds {printable(name)}, which is no file: it is no backup.")
            with open(path, "rb") as opened:
                yield _Member(name, path.stat().st_mtime, partial(opened.read, BLOCK))


def _allowed(source: Path, name: str) -> str:
    """The name of a file that may be made below the data directory; a stranger may have made the backup."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\0" in name or str(path) != name or not path.parts
    if outside or path.parts[0] in LEFT_OUT - {MANIFEST} or path.parts[0].startswith(ASIDE):
        raise Unreadable(f"{source} holds {printable(name)}, which no backup does: it is not touched.")
    return name


# -- into its place --------------------------------------------------------------------------------


def _report(manifest: Manifest, staging: Path) -> int:
    """Read every line of every transcript and say what there is; returns how many are damaged."""
    sessions = lines = damaged = 0
    entries = latest_first(Files(staging))
    for found in spread.over(Files(staging), entries, verify.looked_at, "Verifying"):
        for session, what in found:
            sessions += 1
            if isinstance(what, str) or what.damaged:
                damaged += 1
                print(f"{printable(session)} is damaged, as it was when the backup was made.")
            lines += 0 if isinstance(what, str) else what.report.lines
    archived = sum(entry.archived for entry in entries)
    others = len(manifest.files) - len(entries)
    print(
        f"The backup of {manifest.created} (Lunar {manifest.version}) is whole. It has "
        f"{count(sessions, 'session')}, {archived} archived and {damaged} damaged, "
        f"{count(lines, 'line')}, and {count(others, 'other file')}."
    )
    return damaged


def _present(data_dir: Path) -> list[str]:
    """What is in the data directory and would be in the way."""
    ours = {"lock", STAGING, *_DERIVED}
    return sorted(
        entry.name
        for entry in os.scandir(data_dir)
        if entry.name not in ours and not entry.name.startswith(ASIDE) and _holds_something(entry)
    )


def _holds_something(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return any(files for _, _, files in os.walk(entry.path))
    return entry.is_file(follow_symlinks=False) or entry.is_symlink()


def _exchange(data_dir: Path, staging: Path) -> Path | None:
    """Move aside what is there, then everything new into its place; returns where the old is.

    Broken off anywhere, all is in one of the three places, and another restore goes on from there.
    """
    aside = data_dir / f"{ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    present = _present(data_dir)
    if present:
        aside.mkdir(mode=0o700)
    for name in present:
        os.rename(data_dir / name, aside / name)
    for name in _DERIVED:  # it would hide what is open in the sessions that come
        (data_dir / name).unlink(missing_ok=True)
    for path in sorted(staging.iterdir()):
        _remove_empty(data_dir / path.name)
        os.rename(path, data_dir / path.name)
    staging.rmdir()
    sync_directory(data_dir)
    return aside if present else None


def _remove_empty(folder: Path) -> None:
    for below, _, _ in os.walk(folder, topdown=False):
        os.rmdir(below)


def _give_to_owner(data_dir: Path) -> None:
    """Root restores for the gateway's user: the owner of the data directory."""
    owner = data_dir.stat()
    if os.geteuid() == 0 != owner.st_uid:
        for folder, below, files in os.walk(data_dir):
            for name in [*below, *files]:
                os.chown(Path(folder, name), owner.st_uid, owner.st_gid, follow_symlinks=False)
