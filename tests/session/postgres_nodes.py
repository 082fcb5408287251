"""Several nodes over one database, and what each of them hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from session.events import Record
from session.ids import SessionId
from session.postgres import PostgresStore
from session.protocols import Following

SECONDS = 20.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another connection brings."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - as the docstring says
            await asyncio.sleep(0.005)


class Node:
    """One store, with what it called back."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.woken: list[SessionId] = []
        self.taken: list[SessionId] = []
        self.deposed: list[SessionId] = []
        self.heard: list[tuple[int, str]] = []
        self.lost = 0
        self.room = 0  # how many abandoned sessions it takes
        store.woken, store.taken = self.woken.append, self.taken.append
        store.deposed = self.deposed.extend
        store.heard = lambda node, text: self.heard.append((node, text))
        store.lost = self._lost
        store.room = lambda: self.room

    def _lost(self) -> None:
        self.lost += 1

    def follow(self, session: SessionId, after: str | None = None) -> Heard:
        return Heard(self.store, session, after)


class Heard:
    """What a follower was handed, and whether it was told that this is over."""

    def __init__(self, store: PostgresStore, session: SessionId, after: str | None) -> None:
        self.records: list[Record] = []
        self.broken = 0
        self.following: Following = store.follow(session, after, self.records.extend, self._broken)

    def _broken(self) -> None:
        self.broken += 1

    @property
    def texts(self) -> list[str]:
        """The contents of the events, without the header."""
        events = [record.event for record in self.records]
        return [getattr(event, "content", "") for event in events if getattr(event, "name", "") != "session"]


@asynccontextmanager
async def nodes(url: str, folder: Path, *names: str, connections: int = 4) -> AsyncIterator[list[Node]]:
    """Open ones; those that are not closed in the block are closed after it."""
    made = [Node(PostgresStore(url, folder / name, name, connections=connections)) for name in names]
    opened: list[Node] = []
    try:
        for node in made:
            await node.store.open()
            opened.append(node)
        yield made
    finally:
        for node in opened:
            await node.store.close()
