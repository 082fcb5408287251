"""Pairing as operators see it, whether they type `/approve` or `lunar pairing`."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

from channels.errors import ChannelError


class Waiting(Protocol):
    """A code that somebody was told; times in Unix seconds."""

    @property
    def code(self) -> str: ...

    @property
    def peer(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def expires(self) -> float: ...


class Guest(Protocol):
    """Somebody who was let in; times in Unix seconds."""

    @property
    def peer(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def since(self) -> float: ...


class Pairing(Protocol):
    """`channels.telegram.pairing.Pairing`; its methods wait for the disk."""

    def approve(self, code: str) -> str | None: ...

    def revoke(self, peer: str) -> bool: ...

    def waiting(self) -> list[Any]: ...

    def all(self) -> list[Any]: ...


class Strangers(NamedTuple):
    """Lets people in, and tells who is waiting."""

    pairing: Pairing

    async def approve(self, code: str) -> tuple[bool, str]:
        """Let in whoever was told this code; returns whether that worked, and what to say."""
        try:
            peer = await asyncio.to_thread(self.pairing.approve, code)
        except ChannelError as error:
            return False, str(error)
        except OSError:
            return False, "The approval could not be stored. Please try again."
        if peer is None:
            return False, "No such code is open. Codes are good for an hour; `lunar pairing list` shows them."
        return True, f"{peer} may talk from now on."

    async def revoke(self, peer: str) -> bool:
        """Let a peer in no more; False where it was not let in."""
        return await asyncio.to_thread(self.pairing.revoke, peer)

    async def known(self) -> dict[str, Any]:
        """Who waits with a code, and who was let in."""
        waiting: list[Waiting] = await asyncio.to_thread(self.pairing.waiting)
        guests: list[Guest] = await asyncio.to_thread(self.pairing.all)
        return {
            "waiting": [
                {"code": w.code, "peer": w.peer, "name": w.name, "expires": w.expires} for w in waiting
            ],
            "approved": [{"peer": g.peer, "name": g.name, "since": g.since} for g in guests],
        }
