"""A hundred people who talk at an even rate, whatever happens to the nodes."""

from __future__ import annotations

import asyncio
import itertools
from statistics import quantiles
from typing import NamedTuple

from tests.scale.fleet import Fleet, Roamer


class Waits(NamedTuple):
    """How long answers took, in seconds, as the clients saw it."""

    messages: int
    p50: float
    p99: float
    longest: float


class Talk:
    """Terminals say twice as much as browsers, whose messages are limited to one in two seconds."""

    def __init__(self, fleet: Fleet, *, terminals: int = 60, browsers: int = 40) -> None:
        self.fleet = fleet
        at = [fleet.terminal(f"term{n}") for n in range(terminals)]
        on = [fleet.browser(f"web{n}") for n in range(browsers)]
        self.people = [person for person in [*at, *on] if isinstance(person, Roamer)]
        self._order = itertools.cycle([*at, *on, *at])
        self.over = False

    async def go_on(self, rate: float, text: str = "hello") -> None:
        """Somebody says something `rate` times a second, until it is over."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.over:
            someone = next(self._order)
            someone.say(f"{text} {someone.name}w{len(someone.said)}")
            due += 1 / rate
            await asyncio.sleep(due - loop.time())

    def missing(self) -> list[str]:
        """What somebody still waits for."""
        return [id for person in self.people for id in person.owed()]

    @property
    def connected(self) -> bool:
        """Whether everybody was welcomed at least once."""
        return all(person.welcomes for person in self.people)

    @property
    def errors(self) -> list[str]:
        """Frames that told somebody of an error."""
        return [f"{person.name}: {frame}" for person in self.people for frame in person.errors]

    @property
    def answers(self) -> int:
        """How many were seen."""
        return sum(len(person.waited) for person in self.people)

    @property
    def waits(self) -> Waits:
        took = sorted(seconds for person in self.people for seconds in person.waited.values())
        cuts = quantiles(took, n=100)
        return Waits(len(took), round(cuts[49], 3), round(cuts[98], 3), round(took[-1], 3))
