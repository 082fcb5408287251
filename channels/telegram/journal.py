"""A small file to which facts are only added: one JSON object a line."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Fact = dict[str, Any]


class Journal:
    """Append-only JSONL. Every method waits for the disk and may be called from any thread."""

    compact_at = 2000  # lines

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._told = False
        self._entered = False  # whether the file's name is on disk for sure

    def read(self) -> list[Fact]:
        """Every whole line, oldest first; what a crash tore is passed over. Raises `OSError`."""
        try:
            return facts_of(self.path.read_bytes())
        except FileNotFoundError:
            return []

    def news(self) -> list[Fact] | None:
        """The same at the first call, None from then on: nobody else adds to the file. Raises `OSError`."""
        if self._told:
            return None
        facts = self.read()
        self._told = True
        return facts

    def append(self, *facts: Mapping[str, Any]) -> None:
        """Add lines; they are on disk when this returns. Raises `OSError` and leaves nothing behind then."""
        line = b"".join(map(line_of, facts))
        with self._lock:
            self._entered &= self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _add(descriptor, line)
            finally:
                os.close(descriptor)
            if not self._entered:  # it may also be of a start that was killed right here
                _sync_folder(self.path.parent)
                self._entered = True

    def replace(self, facts: Iterable[Mapping[str, Any]]) -> None:
        """Write the file anew with these lines and no others, at one stroke. Raises `OSError`."""
        beside = self.path.with_name(self.path.name + ".new")
        with self._lock:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write(descriptor, b"".join(map(line_of, facts)))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(beside, self.path)
            _sync_folder(self.path.parent)
            self._entered = True


def facts_of(raw: bytes) -> list[Fact]:
    """Every whole line that is a fact."""
    return [fact for line in raw.split(b"\n") if (fact := _fact(line)) is not None]


def _fact(line: bytes) -> Fact | None:
    try:
        fact = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fact if isinstance(fact, dict) else None


def line_of(fact: Mapping[str, Any]) -> bytes:
    """The fact as a line."""
    text = json.dumps(fact, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"  # lone surrogates become JSON's escapes


def _add(descriptor: int, line: bytes) -> None:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # a crash tore the last line
    try:
        _write(descriptor, line)
        os.fdatasync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _write(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):
        raise OSError(errno.ENOSPC, "the line was written only in part")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
