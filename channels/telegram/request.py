"""The library's HTTP client, whose answers go when they are read instead of waiting for the collector.

It waits for each piece of an answer; we wait for the whole of it, and read no more than an answer can have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from telegram.error import TimedOut
from telegram.request import HTTPXRequest

_LONGEST = 90.0  # seconds; more than all that a request waits for by itself, be it for each once
_LARGEST = 32 << 20  # bytes; a file has 20 MiB at most


class Request(HTTPXRequest):
    """Takes the settings of `telegram.request.HTTPXRequest` by name."""

    def __init__(self, **settings: Any) -> None:
        more = {"event_hooks": {"response": [_read]}, "headers": {"Accept-Encoding": "identity"}}
        super().__init__(httpx_kwargs={**settings.pop("httpx_kwargs", {}), **more}, **settings)

    async def do_request(self, *asked: Any, **how: Any) -> tuple[int, bytes]:
        """As the library's own; raises `TimedOut` also where the answer does not come to its end."""
        try:
            async with asyncio.timeout(_LONGEST):
                return await super().do_request(*asked, **how)
        except TimeoutError:
            raise TimedOut from None


async def _read(response: httpx.Response) -> None:
    """Have the whole answer, and part it from its stream: each holds the other, sixty objects with them."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    response.headers.pop("Content-Encoding", None)  # nobody asked for it, and a little of it may be much
    response.stream = _Bounded(response.stream)
    await response.aread()
    response.stream = httpx.ByteStream(b"")


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = _LARGEST
        async for block in self._stream:
            if (left := left - len(block)) < 0:
                raise httpx.ReadError(f"an answer of more than {_LARGEST} bytes")
            yield block

    async def aclose(self) -> None:
        await self._stream.aclose()
