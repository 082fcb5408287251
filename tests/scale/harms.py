"""What happens to nodes and to their connections to the database, by the dice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from tests.fakes.proxy import Proxy
from tests.scale.fleet import Fleet

KINDS = ("kill", "freeze", "terminate", "cut", "reset", "half_open", "refuse")
WEIGHTS = (5, 2, 3, 1, 1, 1, 1)
_SPARED = 8  # faults, until another node is left alone
STEADY = 8.0  # seconds that a node must have been well to declare another one dead
_UNDER_WAY = 0.3  # seconds in which statements that were sent may still be carried out


class Death(NamedTuple):
    """A node that did nothing from `at` to `back` (by the database's clock), and what was open there."""

    kind: str
    node: int
    at: float
    back: float
    open: frozenset[str]  # sessions


class Harmed(NamedTuple):
    """What happened to a node, from `begin` to `end`, when it was whole again."""

    kind: str
    node: int
    begin: float
    end: float


class Pace(NamedTuple):
    """How long things take, in seconds."""

    frozen: float = 30.0
    down: tuple[float, float] = (0.0, 12.0)  # from a kill to the next start
    pause: tuple[float, float] = (0.5, 4.0)  # from one harm to the next
    unreachable: tuple[float, float] = (0.5, 12.0)  # of the database, for one node
    spares: bool = True  # one node is left alone for a while: it is there to see others die


class Harms:
    """Befall one node after the other, two at most at a time."""

    def __init__(self, fleet: Fleet, proxies: list[Proxy], pace: Pace) -> None:
        self.fleet, self._proxies, self._pace = fleet, proxies, pace
        self._dice = random.Random(fleet.dice.random())  # of its own: who talks when is no matter of ours
        self.deaths: list[Death] = []
        self.happened: list[Harmed] = []
        self._whole = set(range(len(fleet.daemons)))  # those to which something may happen now
        self._spared: int | None = None
        self._free = asyncio.Condition()

    async def befall(self, times: int) -> None:
        """So many, by their weights, each kind as soon as its turn comes."""
        bag: list[str] = []
        under_way: list[asyncio.Task[None]] = []
        for number in range(times):
            if not bag:
                bag = [kind for kind, count in zip(KINDS, WEIGHTS, strict=True) for _ in range(count)]
                self._dice.shuffle(bag)
            if self._pace.spares and number % _SPARED == 0:
                await asyncio.gather(*under_way)
                kind, node = "kill", await self._spare_another()
            else:
                kind, node = bag.pop(), await self._somebody()
            under_way.append(asyncio.create_task(self._on(node, kind)))
            await asyncio.sleep(self._dice.uniform(*self._pace.pause))
        await asyncio.gather(*under_way)

    async def _spare_another(self) -> int:
        """The one that was spared until now: most sessions are there. It is taken."""
        nodes = set(range(len(self.fleet.daemons)))
        before = self._dice.choice(sorted(nodes)) if self._spared is None else self._spared
        self._spared = self._dice.choice(sorted(nodes - {before}))
        self._whole = nodes - {before, self._spared}
        await asyncio.sleep(STEADY)
        return before

    async def _somebody(self) -> int:
        """A node to which nothing happens; it is taken."""
        async with self._free:
            await self._free.wait_for(lambda: len(self._whole) > 1 - self._pace.spares)
            node = self._dice.choice(sorted(self._whole))
            self._whole.remove(node)
        return node

    async def _on(self, node: int, kind: str) -> None:
        harm: Callable[[int], Coroutine[Any, Any, None]] = getattr(self, f"_{kind}")
        begin = await self.fleet.rows.now()
        try:
            await harm(node)
            self.happened.append(Harmed(kind, node, begin, await self.fleet.rows.now()))
        finally:
            async with self._free:
                self._whole.add(node)
                self._free.notify_all()

    # -- of the node -----------------------------------------------------------------------------

    async def _kill(self, node: int) -> None:
        daemon, rows = self.fleet.daemons[node], self.fleet.rows
        at = await rows.now()
        await daemon.kill()
        held = await rows.held(daemon.folder.name)
        await asyncio.sleep(self._dice.uniform(*self._pace.down))
        back = await rows.now()
        await daemon.start()
        self.deaths.append(Death("kill", node, at, back, held))

    async def _freeze(self, node: int) -> None:
        daemon, rows = self.fleet.daemons[node], self.fleet.rows
        daemon.signal(signal.SIGSTOP)
        at = await rows.now()
        await asyncio.sleep(_UNDER_WAY)
        held = await rows.held(daemon.folder.name)
        await asyncio.sleep(self._pace.frozen - _UNDER_WAY)
        back = await rows.now()
        daemon.signal(signal.SIGCONT)
        self.deaths.append(Death("freeze", node, at, back, held))

    # -- of its connections ----------------------------------------------------------------------

    async def _terminate(self, node: int) -> None:
        """All of them, or one of them."""
        await self.fleet.rows.terminate(f"n{node}", all=self._dice.random() < 0.5)

    async def _cut(self, node: int) -> None:
        self._proxies[node].cut()

    async def _reset(self, node: int) -> None:
        self._proxies[node].reset()

    async def _half_open(self, node: int) -> None:
        """The old connections say nothing any more; new ones are as they should be."""
        self._proxies[node].half_open()

    async def _refuse(self, node: int) -> None:
        """For a while there is no database, for this node."""
        self._proxies[node].refusing = True
        self._proxies[node].reset()
        await asyncio.sleep(self._dice.uniform(*self._pace.unreachable))
        self._proxies[node].refusing = False
