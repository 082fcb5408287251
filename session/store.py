"""All transcripts of one data directory, for asyncio: append, read, list, and what is open at start.

Outside this module a session has no path, no offset and no descriptor: only its id and cursors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from session import archive, ids, probe
from session.alone import Alone
from session.appends import Append, fulfil, refuse
from session.errors import BadEvent, SessionError, StorageError
from session.events import Event, Record
from session.files import OpenFiles
from session.hints import OpenLog
from session.ids import SessionId
from session.listing import Entry, entries, id_of, remove
from session.lock import DirectoryLock
from session.pool import Pool, bare
from session.protocols import Following
from session.transcript import Transcript

T = TypeVar("T")
_TAILS = 4  # read at a time: until one is put together, its lines take more memory than what is made of them


class Store:
    """The transcripts below `data_dir`. `start` takes the lock; only then may anything be written.

    Appends of one session are stored in the order of the calls; what comes while the disk is busy is
    written, and waited for, together.
    """

    def __init__(self, data_dir: Path, *, max_open: int = 256, threads: int = 16) -> None:
        self.data_dir = data_dir
        self.fault: str | None = None  # the last append's error, until one succeeds
        self.skipped: set[tuple[str, int]] = set()  # name and place of lines that are no events, for the log
        # Told how many seconds each of some appends took, and the disk's part of it.
        self.timed: Callable[[list[float], float | None], None] = lambda appends, sync: None
        self._sessions = data_dir / "sessions"
        self._lock = DirectoryLock(data_dir)
        self._hints = OpenLog(data_dir)
        self._hinting = asyncio.Lock()
        self._to_hint: set[str] = set()  # names whose appends wait for `_hinting`
        self._queues: dict[str, list[Append]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pool = Pool(threads, "store")
        self._files = OpenFiles(self._sessions, self._pool, max_open)
        self._tails = asyncio.Semaphore(_TAILS)

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the directories, take the lock, read the hints.

        Raises `StoreLocked`, or `OSError` where the directory cannot be made or written.
        """
        archive.make_folder(self._sessions)
        self._lock.acquire()
        try:
            self._hints.load()
        except BaseException:
            self._lock.release()
            raise

    async def open(self) -> None:
        """`start`, as every store is begun."""
        self.start()

    @property
    def rebuilt(self) -> bool:
        """Whether `start` found no sound `open.log` and must look at every session."""
        return self._hints.rebuilt

    @property
    def repaired(self) -> list[str]:
        """The names of transcripts whose torn tail was cut off, for the log."""
        return self._files.repaired

    @property
    def salvaged(self) -> list[str]:
        """The names of transcripts that a damaged archive gave back in part, for the log."""
        return self._files.salvaged

    def maybe_open(self) -> list[SessionId]:
        """The sessions in which something may be open: all that a start has to look at."""
        found = []
        for name in sorted(self._hints.names):
            try:
                found.append(self._id_of(name))
            except (SessionError, OSError) as error:
                # A shortened name whose file cannot be read just now may still hold something open.
                if isinstance(error, FileNotFoundError) or not ids.is_shortened(name):
                    self._hints.remove(name)
        return found

    async def close(self) -> None:
        """Wait for what is being written, close every file and let go of the lock."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._pool.close()
        self._files.close()
        self._hints.close()
        self._lock.release()

    # -- writing ---------------------------------------------------------------------------------

    def append(
        self, session: SessionId, batch: list[Event], *, sync: bool = True, leased: bool = False
    ) -> asyncio.Future[list[Record]]:
        """Store the events behind all earlier ones; the result comes when they are on disk.

        With `sync=False` it comes when they are written, and a power failure may lose them. The future
        raises `StorageError`, or `BadEvent` where one of them is no JSON; then none of the batch is stored.
        """
        stored: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        name = ids.file_name(session)
        item = Append(batch, sync, leased, stored, perf_counter())
        if (queue := self._queues.get(name)) is not None:
            queue.append(item)
        else:
            self._queues[name] = [item]
            self._task(self._flush(name, session))
        return stored

    async def _flush(self, name: str, session: SessionId) -> None:
        while items := self._queues[name]:
            self._queues[name] = []
            await self._store(name, session, items)
        del self._queues[name]

    async def _store(self, name: str, session: SessionId, items: list[Append]) -> None:
        batch = [event for item in items for event in item.batch]
        sync = any(item.sync for item in items)
        try:
            if any(item.opens() for item in items) and name not in self._hints.names:
                await self._hint(name)
            write = partial(_write, batch, sync)
            records, synced = await self._files.use(name, session, write, create=True)
        except BadEvent as error:
            if len(items) == 1:
                refuse(items, error)
                return
            for item in items:  # the others have nothing to do with it
                await self._store(name, session, [item])
        except OSError as error:
            told = error
            if not isinstance(error, StorageError):
                told = StorageError(error.errno, error.strerror or str(error))
            self.fault = str(told)
            refuse(items, bare(told))
        except Exception as error:  # a defect of ours: whoever asked must hear of it and not wait
            refuse(items, error)
        else:
            self.fault = None
            self.timed([perf_counter() - item.asked for item in items], synced if sync else None)
            fulfil(items, records)

    async def _hint(self, name: str) -> None:
        self._to_hint.add(name)
        async with self._hinting:
            if name not in self._hints.names:
                names, self._to_hint = self._to_hint | {name}, set()
                await self._pool.run(self._hints.add, *names)

    async def settle(self, session: SessionId) -> None:
        """Say that the session has nothing open, so that the next start need not look at it."""
        name = ids.file_name(session)
        if name in self._hints.names and name not in self._queues:
            self._hints.names.discard(name)  # at once: a message that comes meanwhile hints anew
            await asyncio.shield(self._task(self._unhint(name)))

    async def _unhint(self, name: str) -> None:
        async with self._hinting:
            if name not in self._hints.names:  # a newer hint must not be taken back
                await self._pool.run(self._hints.remove, name)

    async def claim(self, session: SessionId) -> bool:
        """Nobody else runs turns here."""
        return True

    async def release(self, session: SessionId) -> None:
        """There is nobody to take it."""

    def follow(
        self,
        session: SessionId,
        after: str | None,
        on_foreign: Callable[[list[Record]], None],
        on_broken: Callable[[], None],
    ) -> Following:
        """Nobody else writes here."""
        return Alone()

    async def probe(self) -> None:
        """Write a little and wait for the disk; clears or sets `fault`."""
        try:
            await self._pool.run(probe.write, self.data_dir)
        except OSError as error:
            self.fault = f"{self.data_dir}: {error.strerror or error}"
        else:
            self.fault = None

    # -- reading ---------------------------------------------------------------------------------

    async def end(self, session: SessionId) -> str | None:
        """The cursor after the last event; None where nothing was said yet."""
        return await self._read(session, Transcript.cursor, None)

    async def recent(self, session: SessionId, enough: Callable[[Record], bool]) -> list[Record]:
        """Events from the end back to the first one of which `enough` is true, oldest first."""
        name = ids.file_name(session)

        def read(transcript: Transcript) -> list[Record]:
            found = []
            for record in transcript.backwards(on_bad=lambda place: self.skipped.add((name, place))):
                found.append(record)
                if enough(record):
                    break
            return found[::-1]

        async with self._tails:
            return await self._read(session, read, [])

    async def after(
        self, session: SessionId, cursor: str | None, limit: int, until: str | None = None
    ) -> list[Record]:
        """Up to `limit` events behind the cursor and not behind `until`; raises `BadCursor`."""
        return await self._read(session, lambda t: t.after(cursor, limit, until), [])

    async def before(self, session: SessionId, cursor: str | None, limit: int) -> list[Record]:
        """Up to `limit` events, the newest of them the one that ends at the cursor; raises `BadCursor`."""
        return await self._read(session, lambda t: t.before(cursor, limit), [])

    async def blocks(self, session: SessionId) -> AsyncIterator[bytes]:
        """The whole lines of a session, in blocks that end with a line; nothing is checked."""
        found = archive.blocks(self.data_dir, ids.file_name(session))
        try:
            while block := await self._pool.run(next, found, b""):
                yield block
        except FileNotFoundError:
            return

    async def listing(self) -> list[Entry]:
        """Every session, latest first."""
        return await self._pool.run(lambda: sorted(entries(self.data_dir), key=lambda entry: -entry.modified))

    async def delete(self, session: SessionId) -> bool:
        """Remove a transcript, and what was torn off it, for good; False where there is none."""
        return await asyncio.shield(self._task(self._delete(ids.file_name(session), session)))

    async def _delete(self, name: str, session: SessionId) -> bool:
        async with self._alone(name, session):  # appends that come from now on begin a new file
            async with self._files.without(name):
                found = await self._pool.run(remove, self.data_dir, session)
            self._hints.names.discard(name)
            await self._unhint(name)
        return found

    async def archive(self, session: SessionId) -> str | None:
        """Compress a transcript until somebody speaks again, or say why not; raises `OSError`."""
        return await asyncio.shield(self._task(self._archive(ids.file_name(session), session)))

    async def _archive(self, name: str, session: SessionId) -> str | None:
        async with self._alone(name, session):
            if name in self._hints.names:
                return "something in it is still open"
            if not (self._sessions / name).exists():
                archived = archive.path_of(self.data_dir, name).exists()
                return "it is archived already" if archived else "it is gone"
            await self._files.use(name, session, Transcript.cursor, create=False)  # a torn tail is cut off
            async with self._files.without(name):
                packed = await self._pool.run(archive.pack, self.data_dir, name)
        return None if packed else "its archive holds something else: both are kept"

    async def tidy_archive(self) -> list[str]:
        """Remove archives that a crash left beside their transcripts; the names of those that differ."""
        doubled = await self._pool.run(archive.doubled, self.data_dir)
        return [name for name in doubled if not await self._tidied(name)]

    async def _tidied(self, name: str) -> bool:
        async with self._files.without(name):
            return await self._pool.run(archive.drop_needless, self.data_dir, name)

    @asynccontextmanager
    async def _alone(self, name: str, session: SessionId) -> AsyncIterator[None]:
        """Let the session's appends wait: those called before are stored, the others come after the block."""
        while name in self._queues:
            others = self._tasks - {asyncio.current_task()}
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        self._queues[name] = []
        try:
            yield
        finally:
            self._task(self._flush(name, session))

    async def _read(self, session: SessionId, read: Callable[[Transcript], T], nothing: T) -> T:
        # Shielded: a reader that goes away must not count as out of the file while its thread is in it.
        reading = self._files.use(ids.file_name(session), session, read, create=False)
        try:
            return await asyncio.shield(self._task(reading))
        except FileNotFoundError:
            return nothing

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: that is no "exception never retrieved"

    def _id_of(self, name: str) -> SessionId:
        return id_of(self.data_dir, name)


def _write(batch: list[Event], sync: bool, transcript: Transcript) -> tuple[list[Record], float]:
    return transcript.append(batch, sync=sync), transcript.sync_seconds
