"""Groups that became supergroups, under another id: who was known under the old one stays who it was."""

from __future__ import annotations

import asyncio
import threading

from channels.telegram.journal import Journal
from channels.telegram.shared import Overtaken, SharedJournal

FILE = "telegram-moves.jsonl"


class Moves:
    """From a supergroup's id to the id that its group had. The journal has `{"from", "to"}` for each move."""

    def __init__(self, journal: Journal | SharedJournal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._origins: dict[int, int] = {}
        self._kept: dict[int, int] = {}

    def load(self) -> None:
        """Read what is known; waits for it, and raises `OSError`."""
        with self._lock:
            self._load()

    def _load(self) -> None:
        for fact in self._journal.news() or ():
            if isinstance(old := fact.get("from"), int) and isinstance(new := fact.get("to"), int):
                self._origins[new] = self._kept[new] = old

    def origin(self, chat: int) -> int:
        """The id under which the chat was met first."""
        return self._origins.get(chat, chat)

    def learn(self, old: int, new: int) -> None:
        """Know of a move from now on; `keep` or `forget` it."""
        self._origins[new] = old

    def forget(self, new: int) -> None:
        """A move that does not matter: nobody was known under the old id."""
        if new not in self._kept:
            self._origins.pop(new, None)

    async def keep(self, old: int, new: int) -> None:
        """Remember the move for good; raises `OSError`."""
        if self._kept.get(new) != old:
            await asyncio.to_thread(self._keep, old, new)

    def _keep(self, old: int, new: int) -> None:
        with self._lock:
            while self._kept.get(new) != old:
                try:
                    self._journal.append({"from": old, "to": new})
                except Overtaken:
                    self._load()
                else:
                    self._origins[new] = self._kept[new] = old
