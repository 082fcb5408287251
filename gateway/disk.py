"""How full the disk is, and how many sessions were written to today."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from gateway.usage import midnight
from session import ids
from session.listing import Entry

_SHARE = 50  # a look that took a second is good for fifty: nobody who watches keeps the disk busy
_LEAST = 1.0  # seconds


class Look(NamedTuple):
    """What was seen: sessions of today (UTC), and the bytes of the file system, where that could be told."""

    sessions_today: int
    space: dict[str, int]


class Disk:
    """Looks at a data directory, in a thread, and remembers for a while what it saw."""

    def __init__(
        self,
        data_dir: Path,
        listing: Callable[[], Awaitable[list[Entry]]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`listing`: of the sessions, where they are not kept below `data_dir`."""
        self._data_dir = data_dir
        self._listing = listing
        self._clock = clock
        self._seen = Look(0, {})
        self._good_until: float | None = None

    async def look(self) -> Look:
        """What is there; on 100,000 sessions perhaps a minute old."""
        began = self._clock()
        if self._good_until is None or began >= self._good_until:
            self._seen = await asyncio.to_thread(_look, self._data_dir)
            if self._listing:
                self._seen = self._seen._replace(sessions_today=await _written_today(self._listing))
            took = self._clock() - began
            self._good_until = began + max(_LEAST, _SHARE * took)
        return self._seen


async def _written_today(listing: Callable[[], Awaitable[list[Entry]]]) -> int:
    since = midnight(datetime.now(UTC)).timestamp()
    try:
        return sum(entry.modified >= since for entry in await listing())
    except OSError:
        return 0


def _look(data_dir: Path) -> Look:
    since, count = midnight(datetime.now(UTC)).timestamp(), 0
    try:
        with os.scandir(data_dir / "sessions") as files:
            for file in files:
                count += file.name.endswith(ids.SUFFIX) and _modified(file) >= since
        space = shutil.disk_usage(data_dir)
    except OSError:
        return Look(count, {})
    return Look(count, {"free_bytes": space.free, "total_bytes": space.total})


def _modified(file: os.DirEntry[str]) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0  # gone meanwhile
