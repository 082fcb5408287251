"""A store's life, written down: what was asked of it, what it acknowledged, and what must be there later."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from session.errors import StorageError
from session.events import System, User
from session.ids import SessionId
from session.store import Store
from tests.faults.power import Disk

SESSIONS = [SessionId(f"agent:main:cli:{name}") for name in ("a", "A", "uid:7:x", "x" * 200)]
TEXTS = [
    "", "plain", "é ü ß", "日本語", "😀👩‍👩‍👧", "\u2028\u2029\x85", "a\nb\r\n", "\0", "\ud800",
    "\udc00\ud800x", "\ufeff", '","crc":"00000000"}', "right \u202e left", "y" * 700, "é" * 300,
]  # fmt: skip
_NEVER = 1 << 62


class Entry:
    """One event: when it was sent and acknowledged as synced (in steps of the disk), and whether it asks."""

    def __init__(self, event: Any, sent: int, asked: bool) -> None:
        self.event, self.sent, self.asked = event, sent, asked
        self.acknowledged = _NEVER
        # Refused, or cut off with what was: without the power it may come back, and in any place.
        self.refused = False


class Gone(NamedTuple):
    """A deletion of the session: when it began, and when it was acknowledged."""

    began: int
    over: int


class Life:
    """Plays a store on `disk` by the dice, `length` actions long."""

    def __init__(self, folder: Path, disk: Disk, dice: random.Random) -> None:
        self.folder, self.disk, self.dice = folder, disk, dice
        self.told: dict[SessionId, list[Entry | Gone]] = {of: [] for of in SESSIONS}
        self.settled: dict[SessionId, list[int]] = {of: [] for of in SESSIONS}
        self._count = 0

    @property
    def _now(self) -> int:
        return len(self.disk.steps)

    async def play(self, length: int) -> None:
        """Start a store, use it, close it; what fails on purpose fails for whoever asked, and nobody else."""
        store = self._store()
        for _ in range(length):
            match self.dice.choices(
                ("append", "fault", "settle", "archive", "delete", "restart"), (60, 12, 10, 8, 3, 7)
            )[0]:
                case "append":
                    await self._append(store)
                case "fault":
                    await self._fault(store)
                case "settle":
                    of = self.dice.choice(SESSIONS)
                    self.settled[of].append(self._now)
                    await store.settle(of)
                case "archive":
                    await store.archive(self.dice.choice(SESSIONS))
                case "delete":
                    await self._delete(store)
                case "restart":
                    await store.close()
                    store = self._store()
        await store.close()

    def _store(self) -> Store:
        store = Store(self.folder, max_open=2, threads=2)
        store.start()
        return store

    async def _append(self, store: Store) -> None:
        """One batch or several at once; those that nobody waits for are written only."""
        waiting = []
        for _ in range(self.dice.choice((1, 1, 1, 3))):
            of, sync, asked = self.dice.choice(SESSIONS), self.dice.random() < 0.7, self.dice.random() < 0.5
            entries = [self._entry(asked and sync) for _ in range(self.dice.choice((1, 1, 2)))]
            self.told[of] += entries
            stored = store.append(of, [entry.event for entry in entries], sync=sync)
            waiting.append((stored, of, entries, sync))
        for stored, of, entries, sync in waiting:
            try:
                await stored
            except StorageError:
                for known in self.told[of]:
                    if isinstance(known, Entry) and known.acknowledged == _NEVER:
                        known.refused = True
                continue
            for entry in entries if sync else ():
                entry.acknowledged = self._now

    def _entry(self, asked: bool) -> Entry:
        self._count += 1
        text = f"{self._count} {self.dice.choice(TEXTS)}"
        event: Any = User(content=text, id=f"m{self._count}") if asked else System(name="note", content=text)
        return Entry(event, self._now, asked)

    async def _fault(self, store: Store) -> None:
        match self.dice.choice(("write", "short", "fsync", "open", "ftruncate")):
            case "short":
                self.disk.shorten = self.dice.randrange(40)
            case "ftruncate":  # a sync that fails, and cannot be taken back at once
                self.disk.fail = "fsync"
                await self._append(store)
                self.disk.fail = "ftruncate"
            case name:
                self.disk.fail = name
        await self._append(store)
        self.disk.fail = self.disk.shorten = None

    async def _delete(self, store: Store) -> None:
        of, began = self.dice.choice(SESSIONS), self._now
        await store.delete(of)
        self.told[of].append(Gone(began, self._now))

    # -- judging ---------------------------------------------------------------------------------

    async def judge(self, folder: Path, count: int) -> None:
        """What a start finds in `folder`, `count` steps into this life. Raises `AssertionError`."""
        store = Store(folder, max_open=2, threads=2)
        store.start()
        try:
            maybe_open = set(store.maybe_open())
            found = {of: [event async for event in _events(store, of)] for of in SESSIONS}
            for of in SESSIONS:
                self._judge(of, found[of], count)
                assert of in maybe_open or not self._open(of, count), (
                    f"{of}: forgotten: it has something open"
                )
                found[of].append(User(content="after all that", id="last"))
                await store.append(of, found[of][-1:])
        finally:
            await store.close()
        again = Store(folder, max_open=2, threads=2)
        again.start()
        try:
            for of in SESSIONS:
                now = [event async for event in _events(again, of)]
                assert now == found[of], f"{of}: a second start finds {now} instead of {found[of]}"
            assert not again.repaired, f"torn off by the second start: {again.repaired}"
        finally:
            await again.close()

    def _judge(self, of: SessionId, found: list[Any], count: int) -> None:
        told = [entry for entry in self.told[of] if not isinstance(entry, Entry) or entry.sent <= count]
        gone = [place for place, entry in enumerate(told) if isinstance(entry, Gone) and entry.over <= count]
        told = told[gone[-1] + 1 :] if gone else told
        going = any(isinstance(entry, Gone) and entry.began <= count for entry in told)
        may = [entry for entry in told if isinstance(entry, Entry)]
        must = [entry.event.content for entry in may if entry.acknowledged <= count and not going]
        order = {entry.event.content: place for place, entry in enumerate(may)}
        events = {entry.event.content: entry.event for entry in may}
        texts = [event.content for event in found]
        assert len(set(texts)) == len(texts), f"{of}: twice: {texts}"
        strange = [event for event in found if events.get(event.content) != event]
        assert not strange, f"{of}: never sent, or deleted: {strange}"
        places = [order[text] for text in texts if not may[order[text]].refused]
        assert places == sorted(places), f"{of}: out of order: {[text[:12] for text in texts]}"
        lost = [text for text in must if text not in texts]
        assert not lost, f"{of}: lost: {lost}"

    def _open(self, of: SessionId, count: int) -> bool:
        settled = [moment for moment in self.settled[of] if moment <= count]
        last = settled[-1] if settled else -1
        entries = [entry for entry in self.told[of] if isinstance(entry, Entry)]
        if any(isinstance(entry, Gone) and entry.began <= count for entry in self.told[of]):
            return False  # judged only where nothing was deleted
        return any(entry.asked and last < entry.sent and entry.acknowledged <= count for entry in entries)


async def _events(store: Store, of: SessionId) -> Any:
    for record in await store.after(of, None, 100_000):
        event = record.event
        if not (isinstance(event, System) and event.name == "session"):
            yield event


def moments(life: Life, dice: random.Random, many: int) -> Iterator[int]:
    """Where to let the power fail: any step, the later ones no rarer than the first."""
    for _ in range(many):
        yield dice.randint(0, len(life.disk.steps))
