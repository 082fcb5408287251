"""How often a reply is read while it is shown: what it costs is to follow time, not the number of tokens."""

import asyncio
import itertools
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

_INTERVAL = 0.075  # seconds between two reads
# No wait is longer than this part of what the reply has taken so far: a short one must not end late.
_SHARE = 0.1
_LEAST = 0.002  # seconds; a shorter wait costs more than it saves
_AT_ONCE = 12  # connections at most that are read again in one turn of the loop
_TICK = 0.001  # seconds; a loop's timers are no finer


class Pauses:
    """Connections of which nothing is read for a while.

    However many are due, others have their turn of the loop after a few of them.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, asyncio.Transport]] = []  # a heap, by the loop's clock
        self._number = itertools.count()  # transports have no order
        self._alarm: asyncio.TimerHandle | asyncio.Handle | None = None
        self._wakes = 0.0  # when the alarm goes off

    def pause(self, transport: asyncio.Transport, seconds: float) -> None:
        """Read nothing from it for so long."""
        transport.pause_reading()
        heappush(self._due, (asyncio.get_running_loop().time() + seconds, next(self._number), transport))
        if self._alarm is None or self._due[0][0] < self._wakes:
            self._set()

    def _set(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        loop = asyncio.get_running_loop()
        self._wakes = self._due[0][0]
        late = self._wakes <= loop.time()
        self._alarm = loop.call_soon(self._wake) if late else loop.call_at(self._wakes, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        now = asyncio.get_running_loop().time() + _TICK
        try:
            for _ in range(_AT_ONCE):
                if not self._due or self._due[0][0] > now:
                    break
                _, _, transport = heappop(self._due)
                if not transport.is_closing():
                    transport.resume_reading()
        finally:
            if self._due:  # whatever befalls one, the others are read again
                self._set()


class Pace:
    """Lets more come together in the kernel after each read that brought text, the first one excepted.

    `connection` gives the transport that the reply is read from; None where there is no way to it (any more).
    """

    def __init__(self, connection: Callable[[], asyncio.Transport | None], pauses: Pauses) -> None:
        self._connection = connection
        self._pauses = pauses
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
            self._pauses.pause(transport, pause)


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
