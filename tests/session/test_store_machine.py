"""Random lives of a store, crashes included, beside a dictionary of lists."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from session import archive, directory, hints, ids, transcript
from session.errors import BadCursor, StorageError
from session.events import Record, System, User
from session.ids import SessionId
from session.store import Store
from tests.session.disk import Disk
from tests.session.strategies import texts

T = TypeVar("T")

SESSIONS = [SessionId(f"agent:main:cli:{name}") for name in ("a", "A", "b", "x" * 200)]
sessions = st.sampled_from(SESSIONS)


def lines(records: list[Record]) -> list[bytes]:
    return [record.line for record in records]


class Lives(RuleBasedStateMachine):
    """What was acknowledged as synced is kept by everything; what was only written, by all but a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="store"))
        self.patch = pytest.MonkeyPatch()
        self.disk = Disk()
        for module in (archive, directory, hints, transcript):
            self.patch.setattr(module, "os", self.disk)
        self.patch.setattr(transcript, "BLOCK", 128)
        self.heal()
        self.folder = self.root / "0"
        self.model: dict[SessionId, list[Record]] = {}
        self.synced: dict[SessionId, int] = {}  # how many of them a power failure cannot take
        self.open: set[SessionId] = set()
        self.gone: list[tuple[SessionId, str]] = []  # cursors of deleted sessions
        self.count = self.copies = 0

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            async with asyncio.timeout(60):
                return await work

        return self.loop.run_until_complete(wait())

    def heal(self) -> None:
        self.disk.instead = {"fdatasync": lambda fd: None, "fsync": lambda fd: None}

    @initialize()
    def begin(self) -> None:
        self.start()

    def start(self) -> None:
        self.store = Store(self.folder, max_open=2, threads=2)
        self.store.start()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
        self.loop.close()
        self.patch.undo()
        shutil.rmtree(self.root)

    # -- writing ---------------------------------------------------------------------------------

    def events(self, sizes: list[int], asked: bool, text: str = "") -> list[Any]:
        self.count += 1
        text = json.loads(json.dumps(text))  # two halves of a pair are read as the one character they are
        texts = [f"{text}{'x' * size}" for size in sizes]
        if asked:
            return [User(content=text, id=f"m{self.count}.{part}") for part, text in enumerate(texts)]
        return [System(name="note", content=f"{self.count}{text}") for text in texts]

    def kept(self, of: SessionId, records: list[Record], sync: bool, asked: bool) -> None:
        known = self.model.get(of, [])
        if not known and records:
            known = self.run(self.store.after(of, None, 1))  # the header
        self.model[of] = known + records
        if sync:
            self.synced[of] = len(self.model[of])
        if asked and records:
            self.open.add(of)

    @rule(
        of=sessions,
        sizes=st.lists(st.integers(0, 300), min_size=1, max_size=3),
        text=texts,
        sync=st.booleans(),
        asked=st.booleans(),
    )
    def append(self, of: SessionId, sizes: list[int], text: str, sync: bool, asked: bool) -> None:
        events = self.events(sizes, asked, text)

        async def work() -> list[Record]:
            return await self.store.append(of, events, sync=sync)

        self.kept(of, self.run(work()), sync, asked)

    @rule(of=sessions, other=sessions, syncs=st.lists(st.booleans(), min_size=2, max_size=6))
    def append_at_once(self, of: SessionId, other: SessionId, syncs: list[bool]) -> None:
        batches = [
            (of if number % 2 else other, self.events([5], True), sync) for number, sync in enumerate(syncs)
        ]

        async def work() -> list[list[Record]]:
            return await asyncio.gather(
                *(self.store.append(of, events, sync=sync) for of, events, sync in batches)
            )

        for (where, _, sync), records in zip(batches, self.run(work()), strict=True):
            self.kept(where, records, sync, True)

    @rule(
        of=sessions,
        call=st.sampled_from(["write", "fdatasync", "open", "fstat"]),
        error=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EMFILE]),
        at=st.integers(1, 3),
        uncut=st.booleans(),
        sync=st.booleans(),
    )
    def append_with_a_fault(
        self, of: SessionId, call: str, error: int, at: int, uncut: bool, sync: bool
    ) -> None:
        self.disk.fail(call, error, at=at)
        if uncut:
            self.disk.fail("ftruncate", error)
        events = self.events([20], True)

        async def work() -> list[Record]:
            return await self.store.append(of, events, sync=sync)

        try:
            records = self.run(work())
        except StorageError:
            self.heal()
            if call == "fdatasync" and of in self.model:
                self.forget_unsynced(of)
            if not self.run(self.store.after(of, None, 1)):
                self.model.pop(of, None)
                self.open.discard(
                    of
                )  # what was only written is gone with the failed fdatasync, as with power
        else:
            self.heal()
            self.kept(of, records, sync, True)

    def forget_unsynced(self, of: SessionId) -> None:
        """A failed fdatasync takes what no earlier one confirmed, or (at the hint) nothing.

        What was written before the file was opened again stays: nobody can know that it is not on disk.
        """
        left = len(self.run(self.store.after(of, None, 10_000)))
        assert left >= self.synced.get(of, 0)
        del self.model[of][left:]

    @rule(of=sessions)
    def delete(self, of: SessionId) -> None:
        existed = self.run(self.store.delete(of))
        assert existed or of not in self.model
        self.gone += [(of, record.cursor) for record in self.model.pop(of, [])[-2:]]
        self.synced.pop(of, None)
        self.open.discard(of)

    @rule(of=sessions)
    def settle(self, of: SessionId) -> None:
        self.run(self.store.settle(of))
        self.open.discard(of)

    @rule(
        of=sessions,
        settled=st.booleans(),
        call=st.sampled_from([None, "write", "fsync", "rename", "unlink", "open", "read"]),
        at=st.integers(1, 4),
    )
    def put_away(self, of: SessionId, settled: bool, call: str | None, at: int) -> None:
        if settled:
            self.settle(of)
        if call:
            self.disk.fail(call, errno.EIO, at=at)
        try:
            why = self.run(self.store.archive(of))
        except OSError:
            return
        finally:
            self.heal()
        if of in self.open:
            assert why == "something in it is still open"
        if why is None and of in self.model:
            self.synced[of] = len(self.model[of])

    @rule()
    def tidy(self) -> None:
        self.run(self.store.tidy_archive())

    # -- reading ---------------------------------------------------------------------------------

    @rule(of=sessions, limit=st.integers(1, 8), data=st.data())
    def resume(self, of: SessionId, limit: int, data: st.DataObject) -> None:
        known = self.model.get(of, [])
        place = data.draw(st.integers(0, len(known)))
        cursor = known[place - 1].cursor if place else None
        assert self.run(self.store.after(of, cursor, limit)) == known[place : place + limit]
        if cursor:
            assert self.run(self.store.before(of, cursor, limit)) == known[max(0, place - limit) : place]

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def resume_what_is_gone(self, data: st.DataObject) -> None:
        of, cursor = data.draw(st.sampled_from(self.gone))
        if self.model.get(of):
            with pytest.raises(BadCursor):
                self.run(self.store.after(of, cursor, 5))

    @rule(of=sessions)
    def read_the_end(self, of: SessionId) -> None:
        known = self.model.get(of, [])
        assert self.run(self.store.recent(of, lambda record: False)) == known
        if known:
            assert self.run(self.store.end(of)) == known[-1].cursor

    @rule()
    def list_all(self) -> None:
        listed = {entry.session for entry in self.run(self.store.listing())}
        assert self.model.keys() <= listed
        for of in listed - self.model.keys():  # a first append that failed leaves an empty file
            assert self.run(self.store.after(of, None, 1)) == []

    # -- ends and beginnings ---------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.start()
        self.look_at_everything()

    @rule(torn=st.integers(0, 60), of=sessions, power=st.booleans(), cut=st.integers(0, 10_000))
    def crash(self, torn: int, of: SessionId, power: bool, cut: int) -> None:
        """A copy of the directory as it is right now, with half a line behind one of the files."""
        self.copies += 1
        copy = self.root / str(self.copies)
        shutil.copytree(self.folder, copy)
        self.run(self.store.close())
        shutil.rmtree(self.folder)
        self.folder = copy
        if power:
            self.lose_what_was_not_synced(cut)
        path = copy / "sessions" / ids.file_name(of)
        if path.exists():
            with path.open("ab") as file:
                file.write(b'{"role":"user","content":"never acknowledged, so never finished"'[:torn])
        self.start()
        self.look_at_everything()

    def lose_what_was_not_synced(self, cut: int) -> None:
        for of, known in self.model.items():
            size = sum(len(line) + 1 for line in lines(known))
            safe = sum(len(line) + 1 for line in lines(known[: self.synced.get(of, 0)]))
            path = self.folder / "sessions" / ids.file_name(of)
            if path.exists():  # what is in the archive is there as a whole
                os.truncate(path, safe + cut % (size - safe + 1))

    def look_at_everything(self) -> None:
        """After a crash: nothing that was synced is missing, nothing is there that was not written."""
        for of, known in list(self.model.items()):
            found = self.run(self.store.after(of, None, 10_000))
            assert len(found) >= self.synced.get(of, 0)
            assert found == known[: len(found)]
            self.synced[of] = len(found)
            self.model[of] = found
            if not found:
                del self.model[of]
                self.open.discard(of)

    # -- always ----------------------------------------------------------------------------------

    @invariant()
    def every_open_session_is_hinted_at(self) -> None:
        if hasattr(self, "store"):
            assert self.open <= set(self.store.maybe_open())


LONG = bool(os.environ.get("LUNAR_TEST_TORTURE"))  # make torture
Lives.TestCase.settings = settings(
    max_examples=2000 if LONG else 25, stateful_step_count=60 if LONG else 25, deadline=None
)
TestLives = Lives.TestCase
