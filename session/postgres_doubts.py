"""What was asked of the database and never answered: whether it was done is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from session.errors import StorageError
from session.ids import SessionId
from session.postgres_database import Row
from session.postgres_desk import Desk
from session.postgres_leases import Leases

T = TypeVar("T")
_AGAIN = 1.0  # seconds until a database that is away is asked again


class Owned(NamedTuple):
    """What the table says of a session whose turns this node runs: its lease, and its last line."""

    session: SessionId
    epoch: int
    head: int


class Doubts:
    """A session is in doubt from a lost answer on until its lease has a number that nobody ever sent."""

    def __init__(self, leases: Leases) -> None:
        self.closing = False  # set before the end: nothing is found out any more
        self.woken: Callable[[SessionId], None] = lambda session: None  # the store's callback
        self._leases = leases
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, session: SessionId) -> None:
        """An answer is lost: what was asked for may have been done, or be done yet."""
        desk = self._leases.desk(session)
        desk.doubts += 1
        if desk.doubts == 1:
            self._task(self._find_out(desk))

    async def _find_out(self, desk: Desk) -> None:
        """Ask until it is known what came of it: the session may be ours to run."""
        while desk.doubts and not self.closing:
            try:
                await self.end(desk.session)
            except StorageError:
                await asyncio.sleep(_AGAIN)
        if desk.epoch is not None:
            asyncio.get_running_loop().call_soon(self.woken, desk.session)
        self._leases.tidy(desk)

    async def end(self, session: SessionId) -> Row | None:
        """Let nothing be under way any more of which the outcome is unknown; raises `StorageError`.

        Whatever still holds the session's row is waited for; what comes later by the old number is refused.
        Where there was no doubt, nothing is asked; otherwise it returns what `Leases.claim` does.
        """
        row: Row | None = None
        while (desk := self._leases.find(session)) is not None and desk.doubts:
            if desk.ending is None:  # one for all: a second new number would refuse what is sent by the first
                desk.ending = self._task(self._end(desk))
            row = await asyncio.shield(desk.ending)
        return row

    async def _end(self, desk: Desk) -> Row | None:
        doubts = desk.doubts
        try:
            async with desk.asking:
                row = await self._leases.claim(desk.session, renew=True)
            desk.doubts -= doubts
            return row
        finally:
            desk.ending = None

    def compare(self, table: list[Owned]) -> None:
        """See whether what is known here is what the table says, for all that is ours."""
        for session, epoch, head in table:
            desk = self._leases.find(session)
            if desk is not None and (desk.busy or desk.asking.locked()):
                continue  # it is about to know better
            if desk is None or (desk.epoch or 0) < epoch:
                if desk is not None and not desk.doubts:
                    self._leases.drop(desk)  # a lease that was lost without a word
                self._ask(session)
            elif desk.follower is None or desk.head < head:  # without one, nobody would hear of more
                asyncio.get_running_loop().call_soon(self.woken, session)
        ours = {owned.session for owned in table}
        for desk in self._leases.desks:
            if desk.epoch is not None and not desk.busy and desk.session not in ours:
                self._ask(desk.session)

    def _ask(self, session: SessionId) -> None:
        if not self._leases.desk(session).doubts:
            self.add(session)

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: that is no "exception never retrieved"

    async def quiet(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)
