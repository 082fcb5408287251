"""What waits to be sent to one client: bounded, with adjacent deltas merged."""

from __future__ import annotations

import asyncio

from channels import wire
from channels.base import Delta, Stored, Update

MAX_FRAMES = 256
MAX_BYTES = 1024 * 1024

Item = Update | wire.ServerFrame | wire.History


class Outbox:
    """A queue with one reader. A client that lets it grow over the bound counts as too slow.

    Deltas of one turn that wait together become one: under load the cost follows time, not tokens.
    """

    def __init__(self) -> None:
        self.overflow = asyncio.Event()  # set for good when the bound was passed
        self._items: list[Item] = []
        self._bytes = 0
        self._filled = asyncio.Event()
        self._live = False

    def go_live(self) -> None:
        """The replay is over: from now on what waits counts."""
        self._live = True
        self._check()

    def put(self, item: Item) -> None:
        """Queue something; beyond the bound everything is thrown away, and `overflow` is set."""
        if self.overflow.is_set():
            return
        last = self._items[-1] if self._items else None
        if isinstance(item, Delta) and isinstance(last, Delta) and last.turn == item.turn:
            self._items[-1] = Delta(item.turn, last.text + item.text)
        else:
            self._items.append(item)
        self._bytes += _size(item)
        self._check()
        self._filled.set()

    def _check(self) -> None:
        if self._live and (len(self._items) > MAX_FRAMES or self._bytes > MAX_BYTES):
            self.overflow.set()
            self._items.clear()

    async def take(self, timeout: float | None = None) -> list[Item]:
        """Everything that waits, as soon as there is something; nothing after `timeout` seconds."""
        if not self._items:
            try:
                async with asyncio.timeout(timeout):
                    await self._filled.wait()
            except TimeoutError:
                return []
        items, self._items, self._bytes = self._items, [], 0
        self._filled.clear()
        return items


def _size(item: Item) -> int:
    match item:
        case Delta(text=text) | wire.Notice(text=text):
            return len(text)
        case Stored(record):
            return len(record.line)
    return 100
