"""The transcripts that are open: never too many, none closed under a reader."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

from session.store import Store
from tests.session.disk import Disk
from tests.session.stores import (
    HERE,
    THERE,
    Gate,
    everything,
    note,
    said,
    session,
    transcripts_open,
    user,
)


class Held:
    """How many transcripts of a folder are open, and were at most: by the calls, from before an open to
    after its close. What /proc lists is of no one moment."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()
        self._fds: set[int] = set()
        self._within = f"{folder}/sessions/agent-"
        disk.instead |= {"open": self._open, "close": self._close}

    def _open(self, path: Any, *args: Any, **kwargs: Any) -> int:
        ours = str(path).startswith(self._within)
        self._count(ours)
        try:
            fd = os.open(path, *args, **kwargs)
        except OSError:
            self._count(-ours)
            raise
        if ours:
            self._fds.add(fd)
        return fd

    def _close(self, fd: int) -> None:
        ours = fd in self._fds
        self._fds.discard(fd)
        os.close(fd)
        self._count(-ours)

    def _count(self, more: int) -> None:
        with self._lock:
            self.now += more
            self.most = max(self.most, self.now)


async def test_no_more_files_than_allowed_are_open(opened: Store, disk: Disk, tmp_path: Path) -> None:
    held = Held(disk, tmp_path)
    sessions = [session(number) for number in range(100)]
    await asyncio.gather(*(opened.append(of, [user("m")]) for of in sessions))
    await asyncio.gather(
        *(opened.end(of) for of in sessions), *(opened.append(of, [note("n")]) for of in sessions)
    )
    assert 1 < held.most <= 8
    assert 1 < held.now == transcripts_open(tmp_path) <= 8
    assert all([len(await everything(opened, of)) == 2 for of in sessions])


async def test_the_file_in_use_is_not_the_one_that_is_closed(
    opened: Store, disk: Disk, tmp_path: Path
) -> None:
    await opened.append(HERE, [user("m1")])
    gate = Gate(disk, "pread")
    reading = asyncio.create_task(opened.before(HERE, None, 9))
    await gate.entered()
    del disk.instead["pread"]
    for number in range(20):
        await opened.append(session(number), [user("m")])
    assert transcripts_open(tmp_path) <= 8
    gate.open()
    assert said(await reading) == [user("m1")]


async def test_a_reader_that_is_cancelled_stays_in_its_file_until_its_thread_is_out(
    opened: Store, disk: Disk, tmp_path: Path
) -> None:
    await opened.append(HERE, [user("m1")])
    gate = Gate(disk, "pread")
    readers = [asyncio.create_task(opened.before(HERE, None, 9)) for _ in range(3)]
    await gate.entered()
    del disk.instead["pread"]
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    assert all(reader.cancelled() for reader in readers)
    assert await opened.delete(HERE)
    assert transcripts_open(tmp_path) == 1  # deleted, but its number is not free for another file
    await opened.append(THERE, [user("m2")])
    gate.open()
    assert await everything(opened, THERE) == [user("m2")]
    await opened.close()
    assert transcripts_open(tmp_path) == 0


async def test_reading_goes_on_while_the_disk_is_slow(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [user("m1")])
    gate = Gate(disk, "fdatasync")
    slow = opened.append(HERE, [user("m2")])
    await gate.entered()
    assert await everything(opened) == [user("m1")]  # what is not on disk is not there yet
    gate.open()
    await slow
    assert await everything(opened) == [user("m1"), user("m2")]
