"""When the garbage collector looks at what: a pass holds up the event loop, and so the whole gateway.

With some hundred sessions at work a look at everything takes 50 ms and more: it waits until nobody waits for
anything. What is young is looked at every 20 ms while there is work, and so a few thousand objects at a time.
The interpreter's own count would not do that: it takes off what is freed, and where replies stream, as much
is freed as made. Sixteen thousand objects came together between two of its passes, which then took 10 ms.

What outlives one look is looked at with everything. 500 replies that stream hold 15,000 objects, all young:
a second look at them took 5 ms and more. It would find next to nothing, for turns, lanes and clients leave no
cycle behind (`tests/fakes/garbage.py` finds those that do).
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

_NEVER = 1 << 30
_YOUNG = 700  # objects more than at the last pass, after which one is made in any case; as usual
_DUE = 70_000  # objects more than at the last pass over everything, after which one is due; as usual
_AT_LAST = 1_400_000  # the same, however busy the gateway is: garbage must not pile up for ever
_QUIET = 0.05  # share of one CPU; below that, hardly anything is going on
_INTERVAL = 0.02  # seconds between two passes over what is young
_SECONDS = 2.0  # between two looks at how busy the gateway is


def keep_off() -> None:
    """From now on only a `Collector` has everything looked at."""
    gc.set_threshold(_YOUNG, _NEVER, _NEVER)


class Collector:
    """`clock` and `used` give seconds, of the wall clock and of the CPU."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._used = used
        self._before = clock(), used()
        self._passes = _passes()  # at the last one over everything
        self._early = 0  # by how many objects those of `look_at_young` came early since then

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            if self.look():
                await asyncio.sleep(_SECONDS)
                continue
            for _ in range(int(_SECONDS / _INTERVAL)):
                await asyncio.sleep(_INTERVAL)
                self.look_at_young()

    def look(self) -> bool:
        """Look at everything where that is due and in nobody's way; whether hardly anything is going on."""
        then, spent = self._before
        self._before = now, used = self._clock(), self._used()
        quiet = used - spent < _QUIET * (now - then)
        if self._more() >= (_DUE if quiet else _AT_LAST) and gc.isenabled():
            gc.collect()
            self._passes, self._early = _passes(), 0
        return quiet

    def look_at_young(self) -> None:
        """Look at what was made since the last pass, unless collecting is put off just now."""
        if gc.isenabled():
            self._early += _YOUNG - gc.get_count()[0]
            gc.collect(0)

    def _more(self) -> int:
        """How many objects there are more than at the last pass over everything, or were in between."""
        return (_passes() - self._passes) * _YOUNG - self._early


def _passes() -> int:
    """How many passes over what is young there were. (`gc.get_count` begins anew with `gc.freeze`.)"""
    return sum(int(generation["collections"]) for generation in gc.get_stats()[:2])
