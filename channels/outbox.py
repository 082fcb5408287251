"""What waits to be sent to one client: bounded, with adjacent deltas merged."""

from __future__ import annotations

import asyncio

from channels import wire
from channels.base import Approval, Delta, Stored, Update

MAX_FRAMES = 256
MAX_BYTES = 1024 * 1024
_LONGEST_DELTA = 64 * 1024  # characters; merged deltas, too, must fit into a frame

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

    def put(self, item: Item) -> None:
        """Queue something; beyond the bound everything is thrown away, and `overflow` is set."""
        if self.overflow.is_set():
            return
        if isinstance(item, Delta) and (merged := self._merged(item)):
            self._items[-1] = merged
        else:
            self._items.append(item)
        self._bytes += _size(item)
        if len(self._items) > MAX_FRAMES or self._bytes > MAX_BYTES:
            self.overflow.set()
            self._items.clear()
        self._filled.set()

    def _merged(self, more: Delta) -> Delta | None:
        last = self._items[-1] if self._items else None
        if not isinstance(last, Delta) or last.turn != more.turn:
            return None
        fits = len(last.text) + len(more.text) <= _LONGEST_DELTA
        return Delta(more.turn, last.text + more.text) if fits else None

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
        case Approval(args=args):
            return len(str(args))
    return 100
