"""Two things measured in turns, so that a drift of the machine falls on both alike."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

FULL, QUICK = 7, 3


class Pairs(NamedTuple):
    """What was measured of both, in the order of the pairs."""

    mine: list[float]
    floor: list[float]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return median(mine / floor for mine, floor in zip(self.mine, self.floor, strict=True))


def paired(mine: Callable[[], float], floor: Callable[[], float], *, quick: bool) -> Pairs:
    """Measure mine, floor, floor, mine and so on (ABBA), after one of each that does not count."""
    mine(), floor()  # connections, imports, caches
    found = Pairs([], [])
    for number in range(QUICK if quick else FULL):
        for measure, into in ((mine, found.mine), (floor, found.floor))[:: -1 if number % 2 else 1]:
            into.append(measure())
    return found
