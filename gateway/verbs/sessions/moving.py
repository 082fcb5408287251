"""Whole sessions from one place to another: nothing that is there is overwritten, or mixed with another.

Each comes whole or not at all. So whoever was broken off begins anew: what is there already is passed over.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from gateway.errors import CannotCreate, Held
from gateway.verbs.sessions.printing import count, printable
from gateway.verbs.sessions.progress import bar
from gateway.verbs.sessions.source import Files, Source
from session import archive, events, ids
from session.conversation import Conversation, tail
from session.directory import sync_directory
from session.errors import StoreLocked
from session.events import BadLine
from session.hints import OpenLog
from session.ids import SessionId
from session.incoming import Incoming
from session.listing import Entry
from session.lock import DirectoryLock
from session.transcript import Transcript

_SESSIONS, _BYTES = 200, 8 << 20  # that are brought at once
_TURNS = 1  # whatever is open is looked for further back than the window goes
_PUSHED = "telegram"  # whose replies are open until they are delivered


class Target(Protocol):
    """Where sessions go."""

    @property
    def source(self) -> Source:
        """What is there."""

    def add(self, batch: list[Incoming]) -> set[SessionId]:
        """Store those that are not there yet, durably; returns them. Raises `OSError`."""


@dataclass
class Tally:
    """What became of the sessions."""

    moved: int = 0
    there: int = 0
    refused: int = 0

    def told(self, done: str) -> int:
        """Say it, such as `imported`; returns the exit code."""
        there = f", {self.there} were there already" if self.there else ""
        refused = f", {self.refused} could not be" if self.refused else ""
        print(f"{count(self.moved, 'session')} {done}{there}{refused}.")
        return 1 if self.refused else 0


def move(source: Source, entries: list[Entry], target: Target, label: str) -> Tally:
    """Bring sessions from `source` to `target`; on stderr is told what could not be. Raises `OSError`."""
    return _Move(source, target).all(entries, label)


class _Move:
    def __init__(self, source: Source, target: Target) -> None:
        self._source = source
        self._target = target
        self._tally = Tally()
        self._torn: dict[SessionId, int] = {}  # bytes behind the last line

    def all(self, entries: list[Entry], label: str) -> Tally:
        with bar(label, len(entries)) as advance:
            for part in _parts(entries):
                self._some([one for entry in part if (one := self._readied(entry)) is not None])
                advance(len(part))
        return self._tally

    def _some(self, batch: list[Incoming]) -> None:
        new = self._target.add(batch) if batch else set()
        self._tally.moved += len(new)
        for one in batch:
            if one.session not in new:
                self._compare(one)
            if torn := self._torn.pop(one.session, 0):
                _say(one.session, f"a torn last line of {torn} bytes is left out")

    def _readied(self, entry: Entry) -> Incoming | None:
        session = entry.session
        if not isinstance(self._source, Files):  # only files are ever damaged, or begun
            return Incoming(session, entry.modified, False, partial(self._blocks, session))
        damage: OSError | None
        try:
            transcript, damage = self._source.opened(session)
            try:
                waits = _waits(session, transcript) or (not entry.archived and entry.size > transcript.end)
            finally:
                transcript.close()
            if damage is None and next(self._blocks(session), None) is None:
                _say(session, "holds no whole line, and is left out")
                return None
        except OSError as error:
            damage = error
        if damage is None:
            return Incoming(session, entry.modified, waits, partial(self._blocks, session))
        self._tally.refused += 1
        _say(session, f"cannot be read to its end, and is left out: {damage.strerror or damage}")
        return None

    def _blocks(self, session: SessionId) -> Iterator[bytes]:
        """What a start of the gateway would find: a last line without its end counts if it is an event."""
        rest: list[bytes] = []
        yield from self._source.blocks(session, rest.append)
        for unfinished in rest:
            try:
                events.decode(unfinished)
            except BadLine:
                self._torn[session] = len(unfinished)
            else:
                yield unfinished + b"\n"

    def _compare(self, one: Incoming) -> None:
        if _begins_with(self._target.source.blocks(one.session), one.blocks()):
            self._tally.there += 1  # it may have gone on since
            return
        self._tally.refused += 1
        _say(one.session, "is there already and holds something else: nothing was changed")


def _parts(entries: list[Entry]) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    size = 0
    for entry in entries:
        part.append(entry)
        size += entry.size
        if len(part) == _SESSIONS or size >= _BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _waits(session: SessionId, transcript: Transcript) -> bool:
    """Whether something in it is to be answered, or to be delivered."""
    enough, records = tail(_TURNS), []
    for record in transcript.backwards():
        records.append(record)
        if enough(record):
            break
    told = Conversation(_TURNS, push=ids.parse(session)[1].provider == _PUSHED)
    for record in reversed(records):
        told.apply(record)
    return not told.settled


def _begins_with(longer: Iterator[bytes], shorter: Iterator[bytes]) -> bool:
    left = b""
    for piece in shorter:
        while len(left) < len(piece):
            if not (more := next(longer, b"")):
                return False
            left += more
        if not left.startswith(piece):
            return False
        left = left[len(piece) :]
    return True


def _say(session: SessionId, what: str) -> None:
    print(f"{printable(session)}: {what}.", file=sys.stderr)


# -- where they go ---------------------------------------------------------------------------------


class Folder:
    """A data directory without a gateway, held by this process; a `Target`."""

    def __init__(self, data_dir: Path) -> None:
        self.source: Source = Files(data_dir)
        self._data_dir = data_dir

    def add(self, batch: list[Incoming]) -> set[SessionId]:
        """Make the files, on disk when this returns; each is looked at by the next start."""
        new = [one for one in batch if not self.source.holds(one.session)]
        self._hint([ids.file_name(one.session) for one in new])
        folder = self._data_dir / "sessions"
        for one in new:
            path = folder / ids.file_name(one.session)
            fresh = path.with_name(f"{path.name}.new")
            archive.write_file(fresh, one.blocks(), round(one.modified * 1e9))
            os.rename(fresh, path)
        sync_directory(folder)
        return {one.session for one in new}

    def _hint(self, names: list[str]) -> None:
        if not (self._data_dir / "open.log").exists():
            return  # then a start looks at all of them
        hints = OpenLog(self._data_dir)
        hints.load()
        try:
            hints.add(*names)
        finally:
            hints.close()


@contextmanager
def folder(data_dir: Path) -> Iterator[Folder]:
    """A data directory, made where there is none; raises `Held`, `CannotCreate`."""
    lock = DirectoryLock(data_dir)
    try:
        archive.make_folder(data_dir / "sessions")
        lock.acquire()
    except StoreLocked as error:
        raise Held(f"A gateway is running: {error}. Stop it first.") from error
    except OSError as error:
        raise CannotCreate(f"{data_dir}: {error.strerror or error}.") from error
    try:
        yield Folder(data_dir)
    finally:
        lock.release()
