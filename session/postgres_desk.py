"""What this process knows of one session: its lease, how far it has read, and who must be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from session.appends import Append
from session.events import Record
from session.ids import SessionId
from session.postgres_database import Row


class Follower:
    """The `session.protocols.Following` of one session; `look` asks the store to fetch what is new."""

    def __init__(
        self,
        on_foreign: Callable[[list[Record]], None],
        on_broken: Callable[[], None],
        look: Callable[[], asyncio.Future[bool]],
        ended: Callable[[], None],
    ) -> None:
        self._on_foreign = on_foreign
        self._on_broken = on_broken
        self._look = look
        self._ended = ended
        self._over = False

    def catch_up(self) -> asyncio.Future[bool]:
        """Look for what is new, and say whether it is known now; never raises."""
        return self._look()

    def close(self) -> None:
        """Hand over nothing any more."""
        self._over = True
        self._ended()

    # By call_soon, as a future's callbacks: so everything comes in the order in which it is stored.

    def hand(self, records: list[Record]) -> None:
        """These were stored by others."""
        asyncio.get_running_loop().call_soon(self._hand, records)

    def _hand(self, records: list[Record]) -> None:
        if not self._over:
            self._on_foreign(records)

    def breaks(self) -> None:
        """What was handed over is no longer what is stored."""
        asyncio.get_running_loop().call_soon(self._break)

    def _break(self) -> None:
        if not self._over:
            self._over = True
            self._on_broken()


class Deletion(NamedTuple):
    """Asked for behind the appends that are to be deleted, and before those that are to stay."""

    done: asyncio.Future[
        list[bytes] | None
    ]  # the ids of the messages that were in it; None: nothing was there


@dataclass(slots=True)
class Desk:
    """Kept while there is something on it: appends, a lease, a follower."""

    session: SessionId
    queue: list[Append | Deletion] = field(default_factory=list)
    looks: list[asyncio.Future[bool]] = field(default_factory=list)  # who waits for what is new
    busy: bool = False  # whether its task runs
    epoch: int | None = None  # of the lease, where it is held
    head: int = 0  # up to this line all is known to whoever uses the session here
    tag: str | None = None  # of the session's life in which that is so
    doubts: int = 0  # answers that were lost: what was asked for may still be carried out
    ending: asyncio.Task[Row | None] | None = None  # puts an end to them
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while the lease is about to change
    follower: Follower | None = None

    def next_appends(self, most: int) -> list[Append]:
        """Take what is first in the queue, up to the next deletion."""
        items: list[Append] = []
        for item in self.queue[:most]:
            if isinstance(item, Deletion):
                break
            items.append(item)
        del self.queue[: len(items)]
        return items

    def forget(self) -> None:
        """Nothing that was read holds any more."""
        self.head, self.tag = 0, None

    @property
    def needed(self) -> bool:
        """Whether there is anything to remember."""
        at_work = self.busy or self.queue or self.looks or self.doubts or self.asking.locked()
        return bool(at_work or self.follower or self.epoch is not None)
