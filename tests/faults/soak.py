"""Hours of ordinary load with a fault each minute: `python -m tests.faults.soak --hours 0.5`.

The real daemon, three channels, five messages a second. What it holds (memory, descriptors) is sampled while
people talk, and every eight minutes when they have had their answers and said nothing for a minute; its
slopes are told for the lives that lasted. In the end all is judged by the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from tests.fakes.openai_server import OpenAIServer
from tests.fakes.proxy import Proxy
from tests.fakes.telegram_server import TelegramServer
from tests.faults import invariants
from tests.faults.listener import Listener
from tests.faults.results import note, quiet
from tests.faults.slope import Points, Sample, Slope, minutes, sample, slope
from tests.faults.talkers import Talkers
from tests.faults.weather import Weather
from tests.faults.world import TOKEN, World

MINUTE = 60.0  # from fault to fault
LASTING = 2100.0  # seconds: a life that is shorter tells nothing of a slope
# Seconds until what is remembered is full: 512 ids of messages a conversation, 4,096 marks of updates.
WARMING = 2700.0
KILL_AGE = 7200.0  # a life is let live so long: a slope needs one that lasts well beyond its warming
# What may be seen to grow in an hour, as the interval's lower end: a soak with more of it fails.
LEAK = {"rss": 24.0, "pss": 24.0, "transcripts": 12.0, "descriptors": 12.0}
LEAK_AT_REST = {"rss": 12.0, "pss": 12.0, "transcripts": 2.0, "descriptors": 2.0}
BETWEEN_RESTS = 450.0
# Seconds of a rest before it is looked at: longer than any connection is kept for the next call, and than the
# minute after which memory that is free is given back.
REST = 70.0


class Plan(NamedTuple):
    """What a soak is repeated by. A short one has its faults, its warming and its lives in proportion."""

    hours: float
    seed: int

    @property
    def seconds(self) -> float:
        return self.hours * 3600

    @property
    def tells(self) -> bool:
        """Whether its slopes say more than how a process warms up."""
        return 0.9 * self.seconds >= LASTING  # nothing is killed before

    def at_most(self, seconds: float, share: float) -> float:
        """So many seconds, or that share of the whole where it is less."""
        return min(seconds, share * self.seconds)


class Life(NamedTuple):
    """What one process held while people talked, and when nobody had for a while, nor waited for anything."""

    busy: list[Sample]
    at_rest: list[Sample]


class Soak:
    """One run. `lives` has the samples of each life of the process, `happened` the faults."""

    def __init__(self, plan: Plan, talkers: Talkers, proxies: dict[str, Proxy]) -> None:
        self.plan = plan
        self.talkers = talkers
        self.world = talkers.world
        self.lives: list[Life] = []
        self.happened: dict[str, int] = {}
        self._proxies = proxies
        self._born = 0.0

    async def start(self) -> None:
        """Start the daemon; it has a new port, which the proxy of the web must know."""
        daemon = self.world.daemon
        await daemon.start()
        self._proxies["web"].target, daemon.port = daemon.port, self._proxies["web"].port
        self._proxies["term"].target = daemon.data_dir / "lunar.sock"
        self.lives.append(Life([], []))
        self._born = time.monotonic()

    async def run(self, weather: Weather) -> None:
        """Talk, while things happen and what the process holds is noted."""
        measuring = asyncio.create_task(self._measure())
        happening = asyncio.create_task(self._happen(weather))
        try:
            await self.talkers.talk(self.plan.seconds)
            await happening
            await self.talkers.answered()
        finally:
            for task in (measuring, happening):
                task.cancel()
            await asyncio.wait({measuring, happening})
        if measuring.done() and not measuring.cancelled():
            measuring.result()

    async def _measure(self) -> None:
        pause = self.plan.at_most(5.0, 1 / 200)
        while True:
            await asyncio.sleep(pause)
            self.world.openai.requests.clear()  # the fakes remember all; hours of it fill the memory
            self.world.telegram.calls.clear()
            process = self.world.daemon.process
            if process is None or not self.talkers.talking:
                continue
            try:
                self.lives[-1].busy.append(self._sample(process.pid))
            except (OSError, ValueError):
                continue  # it is being killed

    def _sample(self, pid: int) -> Sample:
        return sample(pid, time.monotonic() - self._born)

    async def _happen(self, weather: Weather) -> None:
        every, dice = self.plan.at_most(MINUTE, 1 / 8), self.world.dice
        began = time.monotonic()
        over = began + self.plan.seconds - every
        rested, after = began, self.plan.at_most(BETWEEN_RESTS, 1 / 3)
        while time.monotonic() < over:
            if time.monotonic() - rested > after:
                self._tell(began, await self._rest())
                rested = time.monotonic()
            await asyncio.sleep(every * dice.uniform(0.4, 0.6))
            old = time.monotonic() - self._born > self.plan.at_most(KILL_AGE, 0.9)
            if old and dice.random() < 0.4:
                what = await self._kill()
            else:
                what = await dice.choice(weather.faults)(every * dice.uniform(0.1, 0.5))
            self.happened[what] = self.happened.get(what, 0) + 1
            held = _told(life.busy[-1]) if (life := self.lives[-1]).busy else ""
            self._tell(began, what + held)

    def _tell(self, began: float, what: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s, {self.talkers.said} said: {what}", flush=True)

    async def _rest(self) -> str:
        async with self.talkers.silence():
            await asyncio.sleep(self.plan.at_most(REST, 1 / 20))
            process = self.world.daemon.process
            assert process is not None
            at_rest = self.lives[-1].at_rest
            at_rest.append(self._sample(process.pid))
        return f"rested{_told(at_rest[-1])}"

    async def _kill(self) -> str:
        await self.world.daemon.kill()
        await self.start()
        return "killed"

    # -- what it came to -------------------------------------------------------------------------

    def slopes(self) -> dict[str, Slope | None]:
        """Growth an hour of what the process holds while people talk, over the lives that lasted."""
        width = self.plan.at_most(60.0, 1 / 30)
        lives = [life.busy for life in self._lasting()]
        return {name: slope(minutes(self._points(life, name), width) for life in lives) for name in LEAK}

    def slopes_at_rest(self) -> dict[str, Slope | None]:
        """The same of what it holds at rest, where no fault is and no connection is just being used."""
        lives = [life.at_rest for life in self._lasting()]
        return {name: slope(self._points(life, name) for life in lives) for name in LEAK_AT_REST}

    def _lasting(self) -> list[Life]:
        least = self.plan.at_most(LASTING, 0.4)
        return [life for life in self.lives if life.busy and life.busy[-1].age >= least]

    def _points(self, life: list[Sample], name: str) -> Points:
        warm = self.plan.at_most(WARMING, 0.5)
        return [(one.age, getattr(one, name)) for one in life if one.age >= warm]

    def judge(self) -> None:
        """Nothing grows, and nothing went wrong that nobody caught."""
        if self.plan.tells:
            grows = [*leaks(self.slopes(), LEAK), *leaks(self.slopes_at_rest(), LEAK_AT_REST, " at rest")]
            assert not grows, "; ".join(grows)
            assert self.world.outcomes()["summary"], "no summary was written, though people talked for long"
        assert self.world.stamped, "no tool had an effect, though people asked for it"
        unhandled = [entry for entry in self.world.daemon.log if "exception" in entry]
        assert not unhandled, f"nobody caught {unhandled[:3]}"

    def figures(self) -> dict[str, Any]:
        return {
            "measurement": "soak",
            "messages": sum(len(someone.said) for someone in self.world.everybody),
            "a_second": round(self.talkers.said / self.talkers.talked, 2),
            "rested": round(self.talkers.silent),
            "sessions": len(self.world.everybody),
            "effects": len(self.world.stamped),
            "outcomes": self.world.outcomes(),
            "faults": sum(self.happened.values()),
            "happened": self.happened,
            "slopes_an_hour": _as_dicts(self.slopes()),
            "at_rest": _as_dicts(self.slopes_at_rest()),
        }


def _told(one: Sample) -> str:
    return f", {one.rss:.0f} MiB, {one.transcripts} transcripts and {one.descriptors} other descriptors"


def _as_dicts(slopes: dict[str, Slope | None]) -> dict[str, Any]:
    return {name: found._asdict() if found else None for name, found in slopes.items()}


def leaks(slopes: dict[str, Slope | None], may: dict[str, float], when: str = "") -> Iterator[str]:
    """What surely grows by more than may be."""
    for name, found in slopes.items():
        if found and found.per_hour - found.margin > may[name]:
            yield f"{name}{when} grows by {found.per_hour:g} ± {found.margin:g} an hour"


async def _set_up(stack: AsyncExitStack, folder: Path, plan: Plan) -> tuple[Soak, Weather, Listener]:
    """The fakes, a proxy on every way, the daemon started, and everybody there."""
    openai = await stack.enter_async_context(OpenAIServer())
    telegram = await stack.enter_async_context(TelegramServer(TOKEN))
    proxies = {
        "model": await stack.enter_async_context(Proxy(openai.port)),
        "telegram": await stack.enter_async_context(Proxy(telegram.port)),
        "web": await stack.enter_async_context(Proxy(0)),
        "term": await stack.enter_async_context(Proxy(0, folder / "proxy.sock")),
    }
    openai.base_url = f"http://127.0.0.1:{proxies['model'].port}/v1"
    telegram.api_url = f"http://127.0.0.1:{proxies['telegram'].port}"
    world = World(folder, openai, telegram, random.Random(plan.seed), open_to_all=True, module="gateway")
    stack.push_async_callback(world.daemon.close)
    soak = Soak(plan, Talkers(world, random.Random(f"{plan.seed}/talkers")), proxies)
    await soak.start()
    world.daemon.socket = folder / "proxy.sock"
    listener = await stack.enter_async_context(Listener(world.daemon.socket, "term0"))
    return soak, Weather(world, proxies, listener, world.dice), listener


async def soaked(folder: Path, plan: Plan) -> list[dict[str, Any]]:
    """Raises `AssertionError`, with what repeats it, where an invariant does not hold or something grows."""
    async with AsyncExitStack() as stack:
        soak, weather, listener = await _set_up(stack, folder, plan)
        world = soak.world
        try:
            async with world.living():
                await soak.run(weather)
                heard = [id for id, _ in world.clients[0].closed]
                await world.until(lambda: len(listener.ids) >= len(heard), "all that the listener missed")
            assert listener.ids == heard, "a client that was stopped now and then saw something else"
            began = time.monotonic()
            assert await world.daemon.stop() == 0
            stop = round(time.monotonic() - began, 2)
            invariants.check(world)
            soak.judge()
        except AssertionError as error:
            again = f"make soak HOURS={plan.hours:g} SEED={plan.seed}"
            raise AssertionError(
                f"{again}: {error} {world.daemon.log[-5:]} {world.daemon.noise[-10:]}"
            ) from error
        return [soak.figures(), {"measurement": "stop", "connected": "a soak's", "seconds": stop}]


async def run(plan: Plan) -> str | None:
    """Soak once and note what it came to; returns what did not hold."""
    began, failure, figures = time.monotonic(), None, []
    with tempfile.TemporaryDirectory(prefix="lunar-") as folder:
        try:
            figures = await soaked(Path(folder), plan)
        except AssertionError as error:
            failure = str(error)[:4000]
    note(
        "soak",
        **plan._asdict(),
        seconds=round(time.monotonic() - began),
        failure=failure,
        repeat=f"make soak HOURS={plan.hours:g} SEED={plan.seed}",
        figures=figures,
    )
    print(*(line for found in figures[:1] for line in told(found)), sep="\n")
    if not plan.tells:
        print(f"(less than {LASTING / 0.9 / 3600:.2f} hours: that is how it warms up, and no slope)")
    return failure


def told(figures: dict[str, Any]) -> Iterator[str]:
    """The slopes, for people."""
    at_rest = {f"{name} at rest": found for name, found in figures["at_rest"].items()}
    for name, found in (figures["slopes_an_hour"] | at_rest).items():
        if found is None:
            yield f"{name}: no life of the process lasted long enough to tell a slope"
            continue
        unit = " MiB" if name[:3] in ("rss", "pss") else ""
        yield (
            f"{name}: {found['per_hour']:+.2f} ± {found['margin']:.2f}{unit} an hour (95 %), at"
            f" {found['level']:.1f}, over {found['points']} points of {found['lives']} lives"
        )


def main() -> int:
    """1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    args = parser.parse_args()
    quiet()
    return int(asyncio.run(run(Plan(args.hours, args.seed))) is not None)


if __name__ == "__main__":
    sys.exit(main())
