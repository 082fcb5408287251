"""Pairing as operators see it, whether they type `/approve` or `lunar pairing`."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from channels.errors import ChannelError, Refused

_PATIENCE = 8.0  # seconds; right after a start the channel's library is still being loaded
_STILL_STARTING = "The channel with pairing is still starting. Please try again in a moment."


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


class Strangers:
    """Lets people in, and tells who is waiting, once the channel with pairing is there (`come`).

    Until then everything waits for it, at most `patience` seconds.
    """

    def __init__(self, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._pairing: Pairing | None = None
        self._here = asyncio.Event()

    def come(self, pairing: Pairing) -> None:
        """The channel is there; this is its pairing."""
        self._pairing = pairing
        self._here.set()

    async def _come(self) -> Pairing:
        try:
            async with asyncio.timeout(self._patience):
                await self._here.wait()
        except TimeoutError:
            raise Refused("not_found", _STILL_STARTING) from None
        assert self._pairing is not None
        return self._pairing

    async def approve(self, code: str) -> tuple[bool, str]:
        """Let in whoever was told this code; returns whether that worked, and what to say."""
        try:
            peer = await asyncio.to_thread((await self._come()).approve, code)
        except Refused as refused:
            return False, refused.public
        except ChannelError as error:
            return False, str(error)
        except OSError:
            return False, "The approval could not be stored. Please try again."
        if peer is None:
            return False, "No such code is open. Codes are good for an hour; `lunar pairing list` shows them."
        return True, f"{peer} may talk from now on."

    async def revoke(self, peer: str) -> bool:
        """Let a peer in no more; False where it was not let in. Raises `Refused`."""
        return await asyncio.to_thread((await self._come()).revoke, peer)

    async def known(self) -> dict[str, Any]:
        """Who waits with a code, and who was let in. Raises `Refused`."""
        pairing = await self._come()
        waiting: list[Waiting] = await asyncio.to_thread(pairing.waiting)
        guests: list[Guest] = await asyncio.to_thread(pairing.all)
        return {
            "waiting": [
                {"code": w.code, "peer": w.peer, "name": w.name, "expires": w.expires} for w in waiting
            ],
            "approved": [{"peer": g.peer, "name": g.name, "since": g.since} for g in guests],
        }
