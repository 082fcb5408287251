"""What a server says is read no further than is of use: of a refusal what tells why, of an answer so much."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

PLAIN = {"Accept-Encoding": "identity"}
_MOST = 64 * 1024  # bytes


async def keep_brief(response: httpx2.Response) -> None:
    """An event hook of the HTTP client, whose user reads the body of whatever is no success to its end."""
    if not response.is_success:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Limited(response.stream, _MOST, cut=True)


def bounded(response: httpx2.Response, most: int) -> None:
    """Have its reader raise `StreamError` where it is longer than so many bytes.

    It is to come as it is, for a little that is compressed may be much: ask with `PLAIN`.
    """
    response.headers.pop("content-encoding", None)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Limited(response.stream, most, cut=False)


class _Limited(httpx2.AsyncByteStream):
    """So many bytes of a stream; where there are more it ends (`cut`), or raises `StreamError`."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int, *, cut: bool) -> None:
        self._stream = stream
        self._most = most
        self._cut = cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for block in self._stream:
            if len(block) > left and not self._cut:
                raise httpx2.StreamError(f"more than {self._most} bytes")
            yield block[:left]
            left -= len(block)
            if left < 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()
