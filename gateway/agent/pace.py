"""How often a reply is read while it is shown: what it costs is to follow time, not the number of tokens."""

import asyncio
from collections.abc import Callable
from typing import Any

_INTERVAL = 0.06  # seconds between two reads
# No wait is longer than this part of what the reply has taken so far: a short one must not end late.
_SHARE = 0.1
_LEAST = 0.002  # seconds; a shorter wait costs more than it saves


class Pace:
    """Lets more come together in the kernel after each read that brought text, the first one excepted.

    `connection` gives the transport that the reply is read from; None where there is no way to it (any more).
    """

    def __init__(self, connection: Callable[[], asyncio.Transport | None]) -> None:
        self._connection = connection
        self._begun: float | None = None  # when the first text came

    def shown(self, now: float) -> None:
        """Text was read, on the event loop's clock; returns at once."""
        if self._begun is None:
            self._begun = now
        pause = min(_INTERVAL, (now - self._begun) * _SHARE)
        if pause < _LEAST:
            return
        transport = self._connection()
        if transport is not None and not transport.is_closing():
            transport.pause_reading()
            asyncio.get_running_loop().call_later(pause, _resume, transport)


def connection_of(stream: object) -> Callable[[], asyncio.Transport | None]:
    """The transport under a response's stream, as long as the response has it.

    Only the innards of two libraries lead there; where they are others, nothing is paused.
    """
    response: Any = getattr(getattr(stream, "_stream", None), "_aiohttp_response", None)

    def connection() -> asyncio.Transport | None:
        # An answer that has come in whole has given its connection to others.
        held = response.connection if response is not None else None
        return held.transport if held is not None else None

    return connection


def _resume(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.resume_reading()
