"""The library's HTTP client, whose answers go when they are read instead of waiting for the collector."""

from __future__ import annotations

from typing import Any

import httpx
from telegram.request import HTTPXRequest


class Request(HTTPXRequest):
    """Takes the settings of `telegram.request.HTTPXRequest` by name."""

    def __init__(self, **settings: Any) -> None:
        client = {**settings.pop("httpx_kwargs", {}), "event_hooks": {"response": [_read]}}
        super().__init__(httpx_kwargs=client, **settings)


async def _read(response: httpx.Response) -> None:
    """Have the whole answer, and part it from its stream: each holds the other, sixty objects with them."""
    await response.aread()
    response.stream = httpx.ByteStream(b"")
