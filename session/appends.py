"""Events that somebody waits to see stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from session.events import Event, Record, User


class Append(NamedTuple):
    """One call of a store's `append`; `asked`: when, in the seconds of `perf_counter`."""

    batch: list[Event]
    sync: bool
    leased: bool
    stored: asyncio.Future[list[Record]]
    asked: float

    def opens(self) -> bool:
        """Whether a message is in it that waits for an answer."""
        return any(isinstance(event, User) and event.id is not None for event in self.batch)


def fulfil(items: Iterable[Append], records: list[Record]) -> None:
    """The events of all of these were stored, in this order."""
    for item in items:
        mine, records = records[: len(item.batch)], records[len(item.batch) :]
        if not item.stored.done():
            item.stored.set_result(mine)


def refuse(items: Iterable[Append], error: Exception) -> None:
    """None of them was stored."""
    for item in items:
        if not item.stored.done():
            item.stored.set_exception(error)
            item.stored.exception()  # whoever asked may be gone: that is no "exception never retrieved"
