"""Who is still there: each client is pinged every 20 seconds, and let go of where it is silent for ten."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from channels.webchat.websocket import WebSocket

_STEP_SECONDS = 10.0  # from a ping to the look at what came back, and from there to the next ping
_LATE = 1.0  # seconds; so late a look says more of the gateway, which stood still, than of the client
_AT_ONCE = 16  # clients in one turn of the event loop


class _Beat(NamedTuple):
    due: float
    client: WebSocket
    asked: bool  # whether it was pinged last time


class Heartbeat:
    """One task for all clients, thousands of them: each at its own time, counted from when it came."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._beats: deque[_Beat] = deque()  # in the order in which they are due

    def add(self, client: WebSocket) -> None:
        """Look after this client until its connection is lost."""
        self._next(client, asked=False)

    def _next(self, client: WebSocket, *, asked: bool) -> None:
        self._beats.append(_Beat(self._clock() + _STEP_SECONDS, client, asked))

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            if not self._beats:
                await self._sleep(_STEP_SECONDS)  # whoever comes meanwhile is not due before that
                continue
            await self._sleep(max(0.0, self._beats[0].due - self._clock()))
            for _ in range(_AT_ONCE):
                if not self._beats or self._beats[0].due > self._clock():
                    break
                self._beat(*self._beats.popleft())

    def _beat(self, due: float, client: WebSocket, asked: bool) -> None:
        if client.lost:
            return
        asks = not asked or self._clock() - due > _LATE
        if asks:
            client.ping()
        else:
            client.check()
        self._next(client, asked=asks)
