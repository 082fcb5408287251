"""Sessions that nobody goes on with, compressed: `<data_dir>/archive/<name>.gz`, readable with `zcat`.

gzip, measured on transcripts: level 6 makes them 3 to 6 times smaller at 90 MB/s and is read at 300 MB/s;
lzma makes them a quarter smaller still, 15 times as slowly.

Any step on the way there and back may be the last before a power failure. Where it leaves both files, the
plain one is the session; the archive is removed once the plain one is seen to begin with all that it holds.
Everything that changes files is for the holder of the data directory's lock, one session at a time.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from session.directory import sync_directory
from session.errors import DamagedArchive
from session.transcript import BLOCK, Transcript

FOLDER = "archive"
ENDING = ".gz"
_FRESH = ".new"  # of a file that is just being written
_GZIP = 16 + zlib.MAX_WBITS  # zlib's word for a gzip header and its checksum
_LEVEL = 6


def path_of(data_dir: Path, name: str) -> Path:
    """Where the transcript of that file name is when it is archived."""
    return data_dir / FOLDER / f"{name}{ENDING}"


# -- there and back --------------------------------------------------------------------------------


def pack(data_dir: Path, name: str) -> bool:
    """Compress a transcript; False where an archive that holds something else is in the way.

    Raises `OSError`, and leaves the transcript as it was then.
    """
    plain, packed = data_dir / "sessions" / name, path_of(data_dir, name)
    if not drop_needless(data_dir, name):
        return False
    make_folder(packed.parent)
    fresh = packed.with_name(f"{packed.name}{_FRESH}")
    source = os.open(plain, os.O_RDONLY | os.O_CLOEXEC)
    try:
        packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
        pieces = (packer.compress(block) for block in _read(source))
        write_file(fresh, _followed_by(pieces, packer.flush), os.fstat(source).st_mtime_ns)
    finally:
        os.close(source)
    if not _begins_with(plain, fresh):
        raise DamagedArchive(errno.EIO, f"{fresh.name}: what was compressed does not read back")
    os.rename(fresh, packed)
    sync_directory(packed.parent)
    os.unlink(plain)
    return True


def unpack(data_dir: Path, name: str) -> bool | None:
    """Bring an archived transcript back; None where there is none.

    False where it is damaged: what can be read is brought back, and the archive stays too. Raises `OSError`.
    """
    plain, packed = data_dir / "sessions" / name, path_of(data_dir, name)
    try:
        modified = os.stat(packed).st_mtime_ns
    except FileNotFoundError:
        return None
    content = Content(packed)
    fresh = plain.with_name(f"{name}{_FRESH}")
    write_file(fresh, content.salvaged(), modified)
    os.rename(fresh, plain)
    sync_directory(plain.parent)
    if content.damage is None:
        os.unlink(packed)
    return content.damage is None


def drop_needless(data_dir: Path, name: str) -> bool:
    """Remove the archive of a transcript that begins with all of it; False where the two differ."""
    packed = path_of(data_dir, name)
    packed.with_name(f"{packed.name}{_FRESH}").unlink(missing_ok=True)  # of a process that was killed
    try:
        needless = _begins_with(data_dir / "sessions" / name, packed)
    except FileNotFoundError:
        return True  # there is only one of them
    if needless:
        os.unlink(packed)
    return needless


def contradicts(data_dir: Path, name: str) -> bool:
    """Whether both files are there and the plain one does not begin with what is archived."""
    packed, plain = path_of(data_dir, name), data_dir / "sessions" / name
    return packed.exists() and plain.exists() and not _begins_with(plain, packed)


def names(data_dir: Path, ending: str = ENDING) -> Iterator[os.DirEntry[str]]:
    """The files of the archive, unsorted; each name without `.gz` is its transcript's."""
    try:
        folder = os.scandir(data_dir / FOLDER)
    except FileNotFoundError:
        return
    with folder:
        yield from (entry for entry in folder if entry.name.endswith(ending))


def doubled(data_dir: Path) -> list[str]:
    """The transcripts' names of which both files are there, or an unfinished one."""
    found = {entry.name.removesuffix(ENDING) for entry in names(data_dir)}
    both = {name for name in found if (data_dir / "sessions" / name).exists()}
    unfinished = {entry.name.removesuffix(ENDING + _FRESH) for entry in names(data_dir, ENDING + _FRESH)}
    return sorted(both | unfinished)


def make_folder(folder: Path) -> None:
    """Make it, and what is missing above it, on disk when this returns; raises `OSError`."""
    if not folder.is_dir():
        make_folder(folder.parent)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError as error:  # something else of that name
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
        sync_directory(folder.parent)


def write_file(path: Path, pieces: Iterator[bytes], modified: int) -> None:
    """Make a file of this content, on disk when this returns; `modified` in nanoseconds. Raises `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for piece in pieces:
            if os.write(fd, piece) != len(piece):
                raise OSError(errno.EIO, f"{path.name}: short write")
        os.utime(fd, ns=(modified, modified))
        os.fsync(fd)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


def _followed_by(pieces: Iterator[bytes], last: Callable[[], bytes]) -> Iterator[bytes]:
    yield from pieces
    yield last()


def _begins_with(plain: Path, packed: Path) -> bool:
    content = Content(packed)
    with open(plain, "rb") as file:
        return all(file.read(len(piece)) == piece for piece in content.salvaged()) and not content.damage


# -- reading ---------------------------------------------------------------------------------------


class Content:
    """What an archive holds; `damage` is set where `salvaged` came to an early end."""

    def __init__(self, packed: Path) -> None:
        self._packed = packed
        self.damage: DamagedArchive | None = None

    def salvaged(self) -> Iterator[bytes]:
        """The transcript's bytes, up to the first place that cannot be read. Raises `OSError`."""
        unpacker = zlib.decompressobj(wbits=_GZIP)
        fd = os.open(self._packed, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for block in _read(fd):
                yield unpacker.decompress(block)
        except zlib.error as error:
            self.damage = self._damaged(str(error))
            return
        finally:
            os.close(fd)
        if not unpacker.eof:
            self.damage = self._damaged("its end is missing")
        elif unpacker.unused_data:
            self.damage = self._damaged("something else follows its end")

    def _damaged(self, why: str) -> DamagedArchive:
        return DamagedArchive(errno.EIO, f"{self._packed.name} is damaged: {why}")


def opened(data_dir: Path, name: str) -> tuple[Transcript, DamagedArchive | None]:
    """A transcript for reading, wherever it is, and what is wrong with its archive.

    Raises `FileNotFoundError` where there is neither, `OSError`.
    """
    plain = data_dir / "sessions" / name
    try:
        return Transcript(plain, writable=False), None
    except FileNotFoundError:
        content = Content(path_of(data_dir, name))
        try:
            return Transcript(plain, writable=False, content=content.salvaged()), content.damage
        except FileNotFoundError:
            return Transcript(plain, writable=False), None  # the gateway has just brought it back


def blocks(data_dir: Path, name: str, on_rest: Callable[[bytes], object] | None = None) -> Iterator[bytes]:
    """The whole lines of a session, wherever it is, in blocks that end with a line. Raises as `opened`.

    For those who look at everything there is: nothing is checked; a damaged archive ends early. `on_rest` is
    told at the end what stands behind the last whole line, where anything does.
    """
    rest = b""
    for piece in _pieces(data_dir, name):
        whole, newline, begun = piece.rpartition(b"\n")
        if newline:
            yield b"".join((rest, whole, newline))
            rest = begun
        else:
            rest += piece
    if rest and on_rest is not None:
        on_rest(rest)


def _pieces(data_dir: Path, name: str) -> Iterator[bytes]:
    try:
        fd = os.open(data_dir / "sessions" / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield from Content(path_of(data_dir, name)).salvaged()
        return
    try:
        yield from _read(fd)
    finally:
        os.close(fd)


def _read(fd: int) -> Iterator[bytes]:
    while block := os.read(fd, BLOCK):
        yield block
