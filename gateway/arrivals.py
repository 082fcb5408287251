"""The messages of one session that are on their way to the disk, and those that came before."""

from __future__ import annotations

import asyncio

from channels.errors import Refused
from gateway.journal import Journal
from session.errors import Repeated, StorageError
from session.events import Record, User

NOT_STORED = "The gateway cannot store messages just now. Please try again soon."


class Arrivals:
    """Recognises a message that came before."""

    __slots__ = ("_arriving", "_journal")

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._arriving: dict[str, tuple[int, asyncio.Future[list[Record]]]] = {}

    def __len__(self) -> int:
        """How many are on their way."""
        return len(self._arriving)

    def add(self, id: str, text: str, stored: asyncio.Future[list[Record]]) -> None:
        """A message is on its way, until `drop`."""
        self._arriving[id] = (hash(text), stored)

    def drop(self, id: str) -> None:
        """It is stored, or refused."""
        del self._arriving[id]

    async def repeat(self, id: str, text: str | None = None) -> str | None:
        """The cursor after a message that came before; raises `Refused` where its text was another."""
        if arriving := self._arriving.get(id):
            _same(id, text is None or arriving[0] == hash(text))
            return await self.stored(id, text, arriving[1])
        if seen := self._journal.conversation.seen.get(id):
            _same(id, not seen.command and (text is None or seen.text == hash(text)))
            return seen.cursor
        return None

    async def stored(self, id: str, text: str | None, stored: asyncio.Future[list[Record]]) -> str:
        """The cursor after a message, which another node may have stored before us; raises `Refused`."""
        try:
            return await self.cursor(stored)
        except Repeated as before:
            event = before.record.event
            _same(id, text is None or (isinstance(event, User) and event.content == text))
            return before.cursor

    async def cursor(self, stored: asyncio.Future[list[Record]]) -> str:
        """The cursor after what is being stored; raises `Refused`, `Repeated` or `LeaseLost`."""
        try:
            return (await asyncio.shield(stored))[-1].cursor
        except StorageError as error:
            raise Refused("storage_unavailable", NOT_STORED) from error


def _same(id: str, same: bool) -> None:
    if not same:
        raise Refused("id_conflict", f"Message id {id} was used for another text. Use a new id.")
