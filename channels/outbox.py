"""What waits to be sent to one client: bounded, with adjacent deltas merged."""

from __future__ import annotations

from channels import wire
from channels.base import Approval, Delta, Stored, Update

MAX_FRAMES = 256
MAX_BYTES = 1024 * 1024
_LONGEST_DELTA = 64 * 1024  # characters; merged deltas, too, must fit into a frame

Item = Update | wire.ServerFrame | wire.History


class Outbox:
    """A queue. A client that lets it grow over the bound counts as too slow.

    Deltas of one turn that wait together become one: under load the cost follows time, not tokens.
    """

    __slots__ = ("_bytes", "_items", "overflown")

    def __init__(self) -> None:
        self.overflown = False  # set for good when the bound was passed
        self._items: list[Item] = []
        self._bytes = 0

    def put(self, item: Item) -> None:
        """Queue something; beyond the bound everything is thrown away, and `overflown` is set."""
        if self.overflown:
            return
        if isinstance(item, Delta) and (merged := self._merged(item)):
            self._items[-1] = merged
        else:
            self._items.append(item)
        self._bytes += _size(item)
        if len(self._items) > MAX_FRAMES or self._bytes > MAX_BYTES:
            self.overflown = True
            self._items.clear()

    def _merged(self, more: Delta) -> Delta | None:
        last = self._items[-1] if self._items else None
        if not isinstance(last, Delta) or last.turn != more.turn:
            return None
        fits = len(last.text) + len(more.text) <= _LONGEST_DELTA
        return Delta(more.turn, last.text + more.text) if fits else None

    def take(self) -> list[Item]:
        """Everything that waits, oldest first."""
        items, self._items, self._bytes = self._items, [], 0
        return items

    def __len__(self) -> int:
        """How many wait."""
        return len(self._items)


def _size(item: Item) -> int:
    match item:
        case Delta(text=text) | wire.Notice(text=text):
            return len(text)
        case Stored(record):
            return len(record.line)
        case Approval(args=args):
            return len(str(args))
    return 100
