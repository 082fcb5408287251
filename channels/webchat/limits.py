"""How much one connection may say, and how often one address may guess."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MESSAGES_BURST = 10
MESSAGES_SECONDS = 2.0  # one more every so often: 30 a minute
GUESSES_BURST = 10
GUESSES_SECONDS = 5.0
_ADDRESSES = 10_000  # remembered at most; the one that was quiet longest is forgotten


class Allowance:
    """A token bucket: `burst` at once, then one every `seconds`."""

    __slots__ = ("_burst", "_clock", "_seconds", "_spent_until")

    def __init__(self, burst: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._seconds = seconds
        self._clock = clock
        self._spent_until = clock()  # the moment at which everything spent will have come back

    def wait(self) -> float:
        """Seconds until one more is allowed; 0 where it is now."""
        owed = (self._spent_until - self._clock()) / self._seconds
        return max(0.0, (owed - self._burst + 1) * self._seconds)

    def spend(self) -> float:
        """Take one, and return 0; where none is left, take nothing and return the seconds to wait."""
        wait = self.wait()
        if not wait:
            self._spent_until = max(self._spent_until, self._clock()) + self._seconds
        return wait


class Guesses:
    """Failed attempts to sign in, per address. Nobody is locked out: one more is allowed every 5 seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, Allowance] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0 where it may now."""
        failures = self._failures.get(address)
        return failures.wait() if failures else 0.0

    def failed(self, address: str) -> None:
        """Count a failure."""
        failures = self._failures.setdefault(address, Allowance(GUESSES_BURST, GUESSES_SECONDS, self._clock))
        self._failures.move_to_end(address)
        failures.spend()
        if len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)
