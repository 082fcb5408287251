"""HTTP connections to somebody else's server, kept open for the next call."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp


class NewestFirst(aiohttp.TCPConnector):
    """Takes the connection that was used last, not the first.

    Those that a rush has left are closed when their time is over. Taken in turns, as aiohttp does, each is
    used again before that for as long as there are calls: after every rush there are more of them.
    """

    def __init__(self, most: int, kept: float, trusted: ssl.SSLContext | bool = True) -> None:
        super().__init__(limit=most, keepalive_timeout=kept, ssl=trusted)

    async def _get(self, key: Any, traces: Any) -> Any:
        if waiting := self._conns.get(key):
            waiting.rotate(1)
        return await super()._get(key, traces)
