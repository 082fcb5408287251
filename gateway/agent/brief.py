"""What a server says instead of an answer: no more of it is read than tells why."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

_MOST = 64 * 1024  # bytes


async def keep_brief(response: httpx2.Response) -> None:
    """An event hook of the HTTP client, whose user reads the body of whatever is no success to its end."""
    if not response.is_success:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Beginning(response.stream)


class _Beginning(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = _MOST
        async for block in self._stream:
            yield block[:left]
            left -= len(block)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()
