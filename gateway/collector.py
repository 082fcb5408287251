"""When the garbage collector looks at everything there is: while nobody waits for anything.

With some hundred sessions at work one such pass holds the event loop up for 50 ms and more. The passes over
what is young go on, more often than is usual, and so with fewer objects at a time: ten thousand take 10 ms.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

_NEVER = 1 << 30
_YOUNGEST = 150  # objects more than at the last pass, after which one over the youngest is made; usual is 700
_YOUNG = 1  # passes over the youngest after which the next one has the young ones with it; usual is 10
_DUE = 230  # passes over the young ones after which one over everything is due: as many objects as usual
_AT_LAST = (
    4600  # passes after which it is made however busy the gateway is: garbage must not pile up for ever
)
_QUIET = 0.05  # share of one CPU; below that, hardly anything is going on


def keep_off() -> None:
    """From now on only `Collector` has everything looked at."""
    gc.set_threshold(_YOUNGEST, _YOUNG, _NEVER)


class Collector:
    """To be asked every few seconds; `clock` and `used` give seconds, of the wall clock and of the CPU."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._used = used
        self._before = clock(), used()

    def look(self) -> bool:
        """Look at everything where that is due and in nobody's way; whether it was done."""
        then, spent = self._before
        self._before = now, used = self._clock(), self._used()
        quiet = used - spent < _QUIET * (now - then)
        if gc.get_count()[2] < (_DUE if quiet else _AT_LAST):
            return False
        gc.collect()
        return True
