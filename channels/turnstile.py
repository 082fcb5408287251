"""Where many do the same thing in the same moment: a few of them in each turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque

_AT_ONCE = 12


class Turnstile:
    """Lets everybody through in the order in which they came; who is cancelled meanwhile takes no place."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turning = False

    async def passed(self) -> None:
        """Wait for one's turn."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn)
        await mine

    def _turn(self) -> None:
        let_through = 0
        while self._waiting and let_through < _AT_ONCE:
            mine = self._waiting.popleft()
            if not mine.done():
                mine.set_result(None)
                let_through += 1
        self._turning = bool(self._waiting)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
