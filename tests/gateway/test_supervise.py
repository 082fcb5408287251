"""Channels that fail, and what is done about it."""

import asyncio
import random
from collections.abc import Callable

import pytest

from gateway.supervise import FIRST_PAUSE, LONGEST_PAUSE, Supervisor


class Flaky:
    """A channel that fails as often as it is told, and then works."""

    name = "flaky"

    def __init__(self, *faults: BaseException | None) -> None:
        self.faults = list(faults)
        self.runs = 0
        self.working = asyncio.Event()
        self.stopped = False

    async def run(self, ready: Callable[[], None]) -> None:
        self.runs += 1
        if self.faults:
            fault = self.faults.pop(0)
            if fault is not None:
                raise fault
            return
        ready()
        self.working.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped = True


class Pauses:
    """Stands for `asyncio.sleep`."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.faults: list[dict[str, str]] = []
        self.supervisor = Supervisor(self)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.faults.append(dict(self.supervisor.faults))


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (OSError("no route"), "OSError: no route"),
        (None, "it ended by itself"),
        (asyncio.CancelledError(), "it was cancelled from within"),
    ],
)
async def test_a_channel_that_ends_is_started_again(fault: BaseException | None, why: str) -> None:
    pauses, channel = Pauses(), Flaky(fault, fault)
    supervisor = pauses.supervisor
    supervisor.start(channel)
    assert supervisor.faults == {"flaky": "starting"}
    async with asyncio.timeout(5):
        await channel.working.wait()
    assert channel.runs == 3
    assert pauses.faults == [{"flaky": why}] * 2
    assert supervisor.faults == {}
    await supervisor.stop()
    assert channel.stopped


async def test_pauses_grow_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    pauses, channel = Pauses(), Flaky(*[OSError("no route")] * 9)
    pauses.supervisor.start(channel)
    async with asyncio.timeout(5):
        await channel.working.wait()
    assert pauses.seconds[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses.seconds[-1] == LONGEST_PAUSE
    assert sorted(pauses.seconds) == pauses.seconds
    await pauses.supervisor.stop()


async def test_one_channel_does_not_disturb_another() -> None:
    pauses = Pauses()
    good = Flaky()
    good.name = "good"
    pauses.supervisor.start(good)
    await good.working.wait()
    bad = Flaky(OSError("x"))
    pauses.supervisor.start(bad)
    await bad.working.wait()
    assert good.runs == 1
    await pauses.supervisor.stop()
    assert good.stopped
    assert bad.stopped
    await pauses.supervisor.stop()


async def test_a_start_has_settled_when_every_channel_is_ready_or_has_failed() -> None:
    supervisor, held = Supervisor(), asyncio.Event()

    class Slow(Flaky):
        name = "slow"

        async def run(self, ready: Callable[[], None]) -> None:
            await held.wait()
            await super().run(ready)

    supervisor.start(Flaky(OSError("no route")))
    supervisor.start(Slow())
    settled = asyncio.create_task(supervisor.settled())
    await asyncio.wait({settled}, timeout=0.1)
    assert not settled.done()
    assert supervisor.states == {"flaky": "OSError: no route", "slow": "starting"}
    held.set()
    async with asyncio.timeout(5):
        await settled
    assert supervisor.states["slow"] == "ready"
    await supervisor.stop()
