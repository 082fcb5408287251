"""The transcripts that are open: a bounded number of descriptors, none of them closed under a reader."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from session import archive
from session.events import FORMAT, System
from session.ids import SessionId
from session.pool import Pool
from session.transcript import Transcript

T = TypeVar("T")


class _Open:
    """One open transcript; closed when it is retired and nobody is in it."""

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        self.users = 0
        self.retired = False


class OpenFiles:
    """At most `most` transcripts of one folder; the one that was not used for longest makes room.

    The work is done by the pool's threads, the books are kept by the event loop.
    """

    def __init__(self, folder: Path, pool: Pool, most: int) -> None:
        self.repaired: list[str] = []  # names of transcripts whose torn tail was cut off, for the log
        self.salvaged: list[str] = []  # names of those whose archive was damaged, for the log
        self._folder = folder
        self._pool = pool
        self._most = most
        self._room = asyncio.Semaphore(most)  # held by whoever is in a file: all the others can be closed
        self._count = 0  # descriptors: open, retired but in use, or just being opened
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._uncut: dict[str, int] = {}  # where a failed append is still to be taken back

    async def use(self, name: str, session: SessionId, work: Callable[[Transcript], T], *, create: bool) -> T:
        """Do the work with this transcript; raises `FileNotFoundError` where it is not made either.

        `create`: make it where there is none, and write: such work is short, and shares the pool's threads.
        Must not be cancelled: its thread would stay in a file that counts as left.
        """
        async with self._room:
            opened = await self._opened(name, session, create)
            opened.users += 1
            try:
                do = partial(work, opened.transcript)
                return await (self._pool.together(do) if create else self._pool.run(do))
            finally:
                opened.users -= 1
                self._left(name, opened)

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """Close this transcript and let nobody open it until the block ends."""
        async with self._lock(name):
            if opened := self._open.pop(name, None):
                self._retire(opened)
            yield

    def close(self) -> None:
        """Close what nobody is in, and the rest when it is left."""
        while self._open:
            self._retire(self._open.popitem()[1])

    def _lock(self, name: str) -> asyncio.Lock:
        return self._opening.setdefault(name, asyncio.Lock())

    async def _opened(self, name: str, session: SessionId, create: bool) -> _Open:
        if opened := self._open.get(name):
            self._open.move_to_end(name)
            return opened
        async with self._lock(name):
            return self._open.get(name) or await self._open_file(name, session, create)

    async def _open_file(self, name: str, session: SessionId, create: bool) -> _Open:
        self._make_room()
        self._count += 1
        header = System(name="session", content=session, format=FORMAT)
        cut = self._uncut.get(name)
        try:
            transcript = await self._pool.run(self._transcript, name, header, create, cut)
        except BaseException:
            self._count -= 1
            raise
        self._uncut.pop(name, None)
        if transcript.torn:
            self.repaired.append(name)
        opened = self._open[name] = _Open(transcript)
        return opened

    def _transcript(self, name: str, header: System, create: bool, cut: int | None) -> Transcript:
        path = self._folder / name
        try:
            return Transcript(path, writable=True, header=header, create=False, cut=cut)
        except FileNotFoundError:
            back = archive.unpack(self._folder.parent, name)
            if back is None and not create:
                raise
        if back is False:
            self.salvaged.append(name)
        return Transcript(path, writable=True, header=header, create=create, cut=cut)

    def _make_room(self) -> None:
        idle = (name for name, opened in self._open.items() if not opened.users)
        for name in list(islice(idle, max(0, self._count + 1 - self._most))):
            self._retire(self._open.pop(name))

    def _left(self, name: str, opened: _Open) -> None:
        transcript = opened.transcript
        if transcript.broken and self._open.get(name) is opened:
            del self._open[name]
            if transcript.uncut is not None:
                self._uncut[name] = transcript.uncut
            self._retire(opened)
        elif opened.retired and not opened.users:
            self._close(opened)

    def _retire(self, opened: _Open) -> None:
        opened.retired = True
        if not opened.users:
            self._close(opened)

    def _close(self, opened: _Open) -> None:
        opened.transcript.close()
        self._count -= 1
