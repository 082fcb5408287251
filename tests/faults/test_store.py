"""A store on a disk that fails at every call, and its files with every byte cut off or changed.

`tests/session` tries one transcript, one log, one archive; here they live together, with every role and every
kind of text. The long form (`LUNAR_TEST_TORTURE=1`) gives each byte all of its 255 other values, and each
call each error; LUNAR_TEST_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from session import archive, directory, hints, ids, listing, lock, probe, transcript
from session.errors import StorageError
from session.events import Event, System, User, decode, encode
from session.ids import SessionId
from session.store import Store
from session.transcript import Transcript
from tests.faults.figures import TORTURE, figure
from tests.faults.lives import TEXTS
from tests.faults.samples import EVENTS
from tests.session.disk import Disk

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 31)))
FIRST = int(os.environ.get("LUNAR_TEST_FIRST", "0"))  # the byte to begin with: the last run's `next`
PART = float(os.environ.get("LUNAR_TEST_SECONDS", "1200"))
ERRORS = (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EINTR)
CALLS = (
    "open", "write", "fdatasync", "fsync", "ftruncate", "rename", "unlink", "pread", "fstat", "read", "stat",
    "scandir", "utime",
)  # fmt: skip
A, B, C = (SessionId(f"agent:main:cli:{name}") for name in ("a", "é", "c" * 200))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """What the package sees as `os`."""
    disk = Disk()
    for module in (archive, directory, hints, listing, lock, probe, transcript):
        monkeypatch.setattr(module, "os", disk)
    return disk


def healed(disk: Disk) -> None:
    disk.instead = {"fdatasync": lambda fd: None, "fsync": lambda fd: None}


class Script:
    """A store's day, in which every kind of call is made. What failed was said to have failed."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder, self.disk = folder, disk
        self.stored: dict[SessionId, list[Event]] = {A: [], B: [], C: []}
        self.refused: dict[SessionId, list[Event]] = {A: [], B: [], C: []}
        self.unsure: set[SessionId] = set()  # a deletion failed half-way
        self.open: set[SessionId] = set()
        self._left = [
            decode(encode(User(content=text, id=f"old{number}"))[:-1]) for number, text in ((1, "é"),)
        ]

    def prepare(self) -> None:
        """What a process that was killed left: a torn tail, and a line that only lacks its end."""
        folder = self.folder / "sessions"
        folder.mkdir(parents=True)
        whole = encode(System(name="session", content=B, format=1)) + encode(self._left[0])
        (folder / ids.file_name(B)).write_bytes(whole[:-1])
        self.stored[B] = [self._left[0]]
        (folder / ids.file_name(A)).write_bytes(encode(System(name="session", content=A)) + b'{"role":"us')

    async def play(self) -> None:
        opened = await self._started()
        for number, text in enumerate(TEXTS[:6]):
            for of in (A, B, C):
                await self._append(opened, of, User(content=text, id=f"m{number}"))
        await self._tried(opened.settle(A))
        self.open.discard(A)
        await self._tried(opened.archive(A))
        await self._tried(opened.after(A, None, 3))
        await self._append(opened, A, System(name="note", content="back"))
        await self._delete(opened, C)
        await self._append(opened, C, User(content="anew", id="m9"))
        await opened.close()
        opened = await self._started()
        await self._tried(opened.listing())
        await self._tried(opened.tidy_archive())
        await self._append(opened, B, User(content="later", id="m10"))
        healed(self.disk)
        await self._append(opened, A, User(content="healed", id="m11"))
        assert self.stored[A][-1] == User(content="healed", id="m11"), "it does not recover by itself"
        await self.check(opened)
        await opened.close()

    async def _started(self) -> Store:
        for _ in range(3):
            opened = Store(self.folder, max_open=2, threads=2)
            try:
                opened.start()
            except OSError:
                await opened.close()
                continue
            return opened
        raise AssertionError("it does not start")

    async def _append(self, opened: Store, of: SessionId, event: Event) -> None:
        try:
            await opened.append(of, [event])
        except StorageError:
            self.refused[of].append(event)
            return
        self.stored[of].append(event)
        if isinstance(event, User):
            self.open.add(of)

    async def _tried(self, work: Awaitable[Any]) -> None:
        try:
            await work
        except OSError:
            return

    async def _delete(self, opened: Store, of: SessionId) -> None:
        try:
            await opened.delete(of)
        except OSError:
            self.unsure.add(of)
            return
        self.stored[of], self.refused[of] = [], []
        self.open.discard(of)

    async def check(self, opened: Store) -> None:
        for of in (A, B, C):
            records = await opened.after(of, None, 1000)
            found = [record.event for record in records if getattr(record.event, "name", "") != "session"]
            if of in self.unsure:
                assert found in (self.stored[of], self.stored[of][-len(found) :]), (of, found)
                continue
            assert found == self.stored[of], (of, found, self.refused[of])
            assert of not in self.open or of in opened.maybe_open(), f"{of}: forgotten"


def _play(folder: Path, disk: Disk, call: str, at: int, error: int) -> bool:
    """One day on which the `at`-th call of that name fails; whether it came to that."""
    healed(disk)
    script = Script(folder, disk)
    script.prepare()
    before = disk.calls[call]
    disk.fail(call, error, at=at)
    try:
        asyncio.run(script.play())
        reached = disk.calls[call] - before >= at
        asyncio.run(_looked_at_again(script))
    except AssertionError as wrong:
        raise AssertionError(f"{call} number {at} failed with {errno.errorcode[error]}: {wrong}") from wrong
    finally:
        shutil.rmtree(folder)
    return reached


async def _looked_at_again(script: Script) -> None:
    healed(script.disk)
    again = Store(script.folder, max_open=2, threads=2)
    again.start()
    await script.check(again)
    await again.close()


@pytest.mark.parametrize("call", CALLS)
def test_every_call_fails_once(tmp_path: Path, disk: Disk, call: str) -> None:
    count = 0
    for number, error in enumerate(ERRORS if TORTURE else (random.Random(f"{SEED}{call}").choice(ERRORS),)):
        at = 1
        while _play(tmp_path / f"{number}-{at}", disk, call, at, error):
            at += 1
            count += 1
    figure("failing calls", call=call, places=count, lost=0, twice=0, seed=SEED)
    assert count or call in ("scandir", "utime", "stat", "read"), f"{call} was never reached"


# -- bytes ---------------------------------------------------------------------------------------


def _whole() -> list[bytes]:
    """The lines of a transcript with every role and every kind of text."""
    said = [decode(json.dumps(event).encode()) for event in EVENTS]
    said += [User(content=text, id=f"t{number}", ts="t") for number, text in enumerate(TEXTS[:13])]
    return [encode(event) for event in said]


def _opened(folder: Path, content: bytes) -> Transcript:
    path = folder / "agent-main-cli-local.jsonl"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return Transcript(path, writable=True, header=System(name="session", content="agent:main:cli:local"))


def _reads(folder: Path, content: bytes, wanted: Callable[[list[bytes]], None]) -> None:
    """Open it, read it from both ends, go on in it, and open it once more."""
    file = _opened(folder, content)
    try:
        read = [record.line + b"\n" for record in file.after(None, 10_000)]
        wanted(read)
        assert [record.line + b"\n" for record in file.backwards()] == read[::-1]
        [added] = file.append([User(content="goes on", id="last")])
        kept = [record.line + b"\n" for record in file.after(None, 10_000)]
        assert kept[-1] == added.line + b"\n"
        assert kept[-1 - len(read) : -1] == read
    finally:
        file.close()
        for torn in folder.glob("*.torn-*"):
            torn.unlink()


def test_every_byte_is_changed(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    healed(disk)
    monkeypatch.setattr(transcript, "BLOCK", 128)
    lines, dice, count, place = _whole(), random.Random(SEED), 0, FIRST
    whole, began = b"".join(lines), time.monotonic()
    while place < len(whole) and time.monotonic() - began < PART:
        byte = whole[place]
        number = whole[:place].count(b"\n")
        hit = {number, number + 1} if byte == 10 else {number}
        others = [line for index, line in enumerate(lines) if index not in hit]
        own = [decode(lines[index][:-1]) for index in hit if index < len(lines)]
        for value in range(256) if TORTURE else dice.sample(range(256), 1):
            if value != byte:
                spoilt = whole[:place] + bytes([value]) + whole[place + 1 :]
                _reads(tmp_path, spoilt, partial(_costs, others, own))
                count += 1
        place += 1
    where = {"first": FIRST, "next": place, "of": len(whole)}
    figure("flips", seed=SEED, **where, count=count, lost=0, corrupt=0)


def _costs(others: list[bytes], own: list[Event], read: list[bytes]) -> None:
    assert [line for line in read if line in others] == others, "a line that was not touched is missing"
    # Where the very word "crc" was hit there is no checksum any more, and the event is what it was.
    changed = [line for line in read if line not in others and decode(line[:-1]) not in own]
    assert not changed, f"a changed line passes for an event: {changed}"


def test_cut_at_every_byte(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    healed(disk)
    monkeypatch.setattr(transcript, "BLOCK", 128)
    lines = _whole()
    whole = b"".join(lines)
    for size in range(len(whole) + 1):
        kept = whole[:size].count(b"\n")
        complete = whole[size : size + 1] == b"\n"  # only the end of the line is missing

        def wanted(read: list[bytes], kept: int = kept + complete) -> None:
            assert read == lines[:kept]

        _reads(tmp_path, whole[:size], wanted)
    figure("cuts", count=len(whole) + 1, lost=0, corrupt=0)
