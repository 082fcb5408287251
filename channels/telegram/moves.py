"""Groups that became supergroups, under another id: who was known under the old one stays who it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

from channels.telegram.journal import Journal

FILE = "telegram-moves.jsonl"


class Moves:
    """From a supergroup's id to the id that its group had. The file has `{"from", "to"}` for each move."""

    def __init__(self, data_dir: Path) -> None:
        self._journal = Journal(data_dir / FILE)
        self._origins: dict[int, int] = {}
        self._kept: dict[int, int] = {}

    def load(self) -> None:
        """Read what is known; raises `OSError`."""
        for fact in self._journal.read():
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
            await asyncio.to_thread(self._journal.append, {"from": old, "to": new})
            self._origins[new] = self._kept[new] = old
