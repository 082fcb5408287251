"""The sentences that the channel itself says, and who gets which."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from channels.telegram.pairing import Pairing
from channels.telegram.people import People

log = structlog.get_logger(__name__)

_TURNED_AWAY = 1000  # peers that were logged, and are not again


class Welcome:
    """`commands` are the names and summaries of those that the gateway knows."""

    LOST = "Sorry, something went wrong inside the gateway and I could not take in this message."

    def __init__(self, people: People, pairing: Pairing, commands: Sequence[tuple[str, str]]) -> None:
        self._people = people
        self._pairing = pairing
        self._commands = commands
        self._turned_away: set[str] = set()

    def greeting(self) -> str:
        """What whoever opens the chat is told."""
        rows = [f"/{name} – {summary}" for name, summary in self._commands]
        return "\n".join(["Hello! Write to me, and I will answer. I also know these commands:", *rows])

    def admitted(self, peer: str) -> str:
        """What whoever was let in is told."""
        whom = "You may" if peer.startswith("user:") else "Everybody in this group may"
        return f"{whom} talk to me now. Write to me, and I will answer."

    def unreadable(self, kind: str) -> str:
        """One line about what cannot be read."""
        return f"I cannot read {kind} yet. Text, photos, files, voice messages and places do reach me."

    async def stranger(self, peer: str, name: str) -> str | None:
        """What somebody who may not talk to us is told, None for nothing. Raises `OSError`."""
        if not self._people.by_pairing:
            if peer not in self._turned_away and len(self._turned_away) < _TURNED_AWAY:
                self._turned_away.add(peer)
                log.info("not in channels.telegram.allow", peer=peer, name=name)
            return None
        code = await asyncio.to_thread(self._pairing.knock, peer, name)
        if code is None:
            return None
        log.info("a stranger knocks", peer=peer, name=name, next="type /approve and the code in `lunar chat`")
        whom = "you" if peer.startswith("user:") else "this group"
        return (
            f"I do not know {whom} yet: my owner can let {whom} in within an hour with /approve {code.code}"
        )
