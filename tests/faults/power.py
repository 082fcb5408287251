"""A disk that loses its power: what `os` was asked to do, and what may be left of it at any moment.

While a `Disk` is watching, every change below its folder is carried out and noted; syncs are only noted.
`left` then makes a folder as a power failure might have left it after the first so many steps: whatever was
synced is there; of the rest every step by itself is there, missing, or there in part, whatever came behind
it. That is worse than file systems are (they order most of it), and all that POSIX promises. A sync that was
made to fail has lost what was written since the file was opened, whatever a later one says.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Step(NamedTuple):
    """One change. `inode` is the file or, with a `path`, the directory whose sync makes it last."""

    kind: str  # open, write, cut, sync, lost (a sync that failed), make, folder, rename, unlink
    inode: int | str
    path: str = ""
    to: str = ""
    at: int = 0
    data: bytes = b""


class Disk:
    """Watches a folder. `fail` names a call that is to fail next, `shorten` the bytes that a write takes."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.steps: list[Step] = []
        self.fail: str | None = None
        self.shorten: int | None = None
        self._guard = threading.RLock()
        self._numbers: dict[int, int] = {}  # inode number of the real file -> ours
        self._fds: dict[int, int | str] = {}
        self._before: dict[str, int] = {}  # the files that were there, which are on disk
        self._content: dict[int, bytes] = {}
        self._folders: list[str] = []
        for folder, _, names in os.walk(root):
            self._folders.append(folder)
            for name in names:
                path = os.path.join(folder, name)
                number = self._number(os.stat(path).st_ino)
                self._before[path] = number
                self._content[number] = Path(path).read_bytes()

    def _number(self, real: int) -> int:
        return self._numbers.setdefault(real, len(self._numbers) + 1)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Stand between everybody and `os`."""
        names = ("open", "close", "write", "fsync", "fdatasync", "ftruncate", "mkdir", "unlink", "rename")
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                patch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
            yield

    def _ours(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)

    def _broken(self, name: str) -> bool:
        if self.fail == name:
            self.fail = None
            return True
        return False

    # -- what is put in the place of `os` ----------------------------------------------------------

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if not self._ours(path):
                return real(path, flags, *args, **more)
            name = os.fspath(path)
            with self._guard:
                if self._broken("open"):
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                new = not os.path.exists(name)
                fd = real(path, flags, *args, **more)
                if flags & os.O_DIRECTORY:
                    self._fds[fd] = name
                    return fd
                status = os.fstat(fd)
                if new:
                    self._numbers.pop(status.st_ino, None)  # of a file that is gone
                    self._numbers[status.st_ino] = 1 + max(self._numbers.values(), default=0)
                number = self._fds[fd] = self._number(status.st_ino)
                if new:
                    self.steps.append(Step("make", number, name))
                elif flags & os.O_TRUNC:
                    self.steps.append(Step("cut", number))
                else:
                    self.steps.append(Step("open", number))
                return fd

        return call

    def _close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(fd: int) -> None:
            with self._guard:
                self._fds.pop(fd, None)
                real(fd)

        return call

    def _write(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(fd: int, data: Any) -> int:
            number = self._fds.get(fd)
            if not isinstance(number, int):
                return real(fd, data)
            with self._guard:
                if self._broken("write"):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self.shorten is not None:
                    data, self.shorten = bytes(data)[: self.shorten], None
                size = os.fstat(fd).st_size  # all our files are only ever added to
                self.steps.append(Step("write", number, at=size, data=bytes(data)))
                return real(fd, data)

        return call

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(fd: int) -> None:
            number = self._fds.get(fd)
            if number is None:
                return real(fd)
            with self._guard:
                if self._broken("fsync"):
                    self.steps.append(Step("lost", number))
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                self.steps.append(Step("sync", number))
            return None

        return call

    _fdatasync = _fsync

    def _ftruncate(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(fd: int, size: int) -> None:
            number = self._fds.get(fd)
            with self._guard:
                if isinstance(number, int):
                    if self._broken("ftruncate"):
                        raise OSError(errno.EIO, os.strerror(errno.EIO))
                    self.steps.append(Step("cut", number, at=size))
                real(fd, size)

        return call

    def _mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        return self._named(real, "folder")

    def _unlink(self, real: Callable[..., None]) -> Callable[..., None]:
        return self._named(real, "unlink")

    def _named(self, real: Callable[..., None], kind: str) -> Callable[..., None]:
        def call(path: Any, *args: Any, **more: Any) -> None:
            with self._guard:
                real(path, *args, **more)
                if self._ours(path):
                    name = os.fspath(path)
                    self.steps.append(Step(kind, os.path.dirname(name), name))

        return call

    def _rename(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(old: Any, new: Any, **more: Any) -> None:
            with self._guard:
                if self._ours(old) and self._broken("rename"):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                real(old, new, **more)
                if self._ours(old):
                    name = os.fspath(new)
                    self.steps.append(Step("rename", os.path.dirname(name), os.fspath(old), name))

        return call

    # -- what is left ------------------------------------------------------------------------------

    def left(self, count: int, to: Path, dice: random.Random) -> None:
        """Make the folder `to` as it may be when the power fails after the first `count` steps."""
        safe = self._safe(count)
        names, folders = dict(self._before), set(self._folders)
        content = {number: bytearray(data) for number, data in self._content.items()}
        kept = dice.choice([0.0, 0.3, 0.5, 0.8, 1.0])  # of what was not synced
        for step, lasts in zip(self.steps[:count], safe, strict=True):
            there = lasts or dice.random() < kept
            if step.kind in ("write", "cut"):
                if there or dice.random() < 0.3:
                    _change(content.setdefault(int(step.inode), bytearray()), step, None if there else dice)
            elif there:
                _rename(names, folders, step)
        self._build(to, names, folders, content)

    def _safe(self, count: int) -> list[bool]:
        """Of each step, whether a sync has made it last."""
        synced: set[int | str] = set()
        lost: set[int | str] = set()
        safe = []
        for step in reversed(self.steps[:count]):
            about = os.path.dirname(step.path) if step.kind == "make" else step.inode
            if step.kind == "sync":
                synced.add(about)
                lost.discard(about)
            elif step.kind == "lost":
                lost.add(about)
            elif step.kind == "open":
                lost.discard(about)
            # What a failed sync was to write is gone for good; a cut is of the file's size, and comes again.
            safe.append(about in synced and not (about in lost and step.kind == "write"))
        return safe[::-1]

    def _build(
        self, to: Path, names: dict[str, int], folders: set[str], content: dict[int, bytearray]
    ) -> None:
        def there(folder: str) -> bool:
            return folder == self.root or (folder in folders and there(os.path.dirname(folder)))

        for folder in sorted(folders):
            if there(folder):
                (to / os.path.relpath(folder, self.root)).mkdir(exist_ok=True)
        for name, number in names.items():
            if there(os.path.dirname(name)):
                (to / os.path.relpath(name, self.root)).write_bytes(content.get(number, b""))


def _change(file: bytearray, step: Step, torn: random.Random | None) -> None:
    """Write or cut; where `torn`, only a part of what was written is there, nothing or zeros for the rest."""
    if step.kind == "cut":
        if len(file) > step.at:
            del file[step.at :]
        return
    data = step.data
    if torn is not None:
        part = torn.randrange(len(data) + 1)
        data = torn.choice([data[:part], data[:part] + bytes(len(data) - part), bytes(part) + data[part:]])
    if len(file) < step.at:
        file.extend(bytes(step.at - len(file)))  # a hole
    file[step.at : step.at + len(data)] = data


def _rename(names: dict[str, int], folders: set[str], step: Step) -> None:
    match step.kind:
        case "make":
            names[step.path] = int(step.inode)
        case "folder":
            folders.add(step.path)
        case "unlink":
            names.pop(step.path, None)
        case "rename" if step.path in names:
            names[step.to] = names.pop(step.path)
