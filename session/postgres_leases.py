"""Which sessions' turns this process runs, as far as it knows; the table has the last word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from session.errors import StorageError
from session.ids import SessionId
from session.postgres_database import Database, Row
from session.postgres_desk import Desk
from session.postgres_reading import key_of


class Leases:
    """Takes them and gives them back; a lease that is gone is found out by the next append under it."""

    def __init__(self, database: Database, node: Callable[[], int]) -> None:
        # The store's callbacks.
        self.taken: Callable[[SessionId], None] = lambda session: None
        self.deposed: Callable[[list[SessionId]], None] = lambda sessions: None
        self._database = database
        self._node = node
        self._desks: dict[SessionId, Desk] = {}

    # -- what is known ---------------------------------------------------------------------------

    def desk(self, session: SessionId) -> Desk:
        """The session's, made where it is not; `tidy` it after use."""
        if (desk := self._desks.get(session)) is None:
            desk = self._desks[session] = Desk(session)
        return desk

    def find(self, session: SessionId) -> Desk | None:
        """The session's, where there is one."""
        return self._desks.get(session)

    def tidy(self, desk: Desk) -> None:
        """Forget it, where there is nothing to remember."""
        if not desk.needed and self._desks.get(desk.session) is desk:
            del self._desks[desk.session]

    @property
    def desks(self) -> list[Desk]:
        """All of them."""
        return list(self._desks.values())

    def holds(self, session: SessionId) -> bool:
        """Whether this process runs the session's turns."""
        return (desk := self._desks.get(session)) is not None and desk.epoch is not None

    def take(self, desk: Desk, epoch: int) -> None:
        """The table says that it is ours."""
        before, desk.epoch = desk.epoch, max(desk.epoch or 0, epoch)
        if before is None:
            asyncio.get_running_loop().call_soon(self.taken, desk.session)

    def take_anew(self, session: SessionId, epoch: int) -> None:
        """It was nobody's, and is ours: a lease that is still remembered was lost without a word."""
        if (desk := self._desks.get(session)) is not None and (desk.epoch or 0) < epoch:
            self.drop(desk)
        self.take(self.desk(session), epoch)

    def drop(self, *desks: Desk) -> None:
        """The table says that these are not ours any more."""
        lost = [desk for desk in desks if desk.epoch is not None]
        for desk in lost:
            desk.epoch = None
            self.tidy(desk)
        if lost:
            asyncio.get_running_loop().call_soon(self.deposed, [desk.session for desk in lost])

    def told(self, desk: Desk, before: int | None, epoch: int | None) -> None:
        """The table says that it is ours under this number, or not ours (None).

        `before`: the number that was known here when the table was asked. What was taken since then, on
        another connection, may be newer than the answer.
        """
        if epoch is None:
            if desk.epoch == before:
                self.drop(desk)
            return
        if before is not None and desk.epoch == before < epoch and not desk.doubts:
            self.drop(desk)  # nobody renewed it: it was lost without a word, and is taken anew
        self.take(self._desks.setdefault(desk.session, desk), epoch)  # dropping it may have cleared it away

    # -- taking and giving back ------------------------------------------------------------------

    async def claim(self, session: SessionId, *, renew: bool = False) -> Row | None:
        """Take it where nobody who lives has it; the session's `head` and `tag`, None where there is none.

        `renew`: only where we have it, under another number, so that nothing is let in any more that was sent
        under the old one. Raises `StorageError`.
        """
        before = self.desk(session).epoch
        row = await self._database.row(
            "select * from lunar.claim($1, $2, $3)", key_of(session), self._node(), renew
        )
        desk = self.desk(session)
        self.told(desk, before, row["epoch"] if row is not None else None)
        return row if row is not None and row["head"] is not None else None

    async def settle(self, session: SessionId) -> None:
        """Nothing is open, and nothing came that is not known here."""
        desk = self._desks.get(session)
        if desk is None or desk.epoch is None or desk.busy:
            return
        epoch = desk.epoch
        try:
            row = await self._database.row(
                "select lunar.settle($1, $2, $3, $4)", key_of(session), self._node(), epoch, desk.head
            )
        except StorageError:
            return
        if row is not None and row[0] != "newer" and desk.epoch == epoch:  # or an append took it again
            self.drop(desk)  # somebody may have come back to the session meanwhile

    async def release(self, session: SessionId) -> None:
        """Somebody else shall have it; raises `StorageError`."""
        if (desk := self._desks.get(session)) is None or desk.epoch is None:
            return
        desk.epoch = None
        try:
            async with desk.asking:
                release = "select lunar.release($1, $2)"
                await self._database.row_or_nothing(release, key_of(session), self._node())
        finally:
            self.tidy(desk)
