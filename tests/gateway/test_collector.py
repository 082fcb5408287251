"""The collector's passes over everything: in nobody's way, and never put off for ever."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from gateway.collector import Collector, keep_off


class Times:
    """The wall clock and the CPU's, as a test sets them."""

    def __init__(self) -> None:
        self.now = self.used = 0.0

    def pass_by(self, seconds: float, *, busy: float) -> None:
        self.now += seconds
        self.used += seconds * busy


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def grow(objects: int) -> list[list[int]]:
    """So many objects that the collector looks after, made while it is as in the gateway."""
    return [[] for _ in range(objects)]


def young_passes() -> int:
    return sum(int(generation["collections"]) for generation in gc.get_stats()[:2])


def passes_over_everything() -> int:
    return int(gc.get_stats()[2]["collections"])


def test_everything_is_not_looked_at_by_itself() -> None:
    keep_off()
    *_, everything = gc.get_threshold()
    assert everything > 1_000_000


def test_a_quiet_moment_is_used_once_a_pass_is_due() -> None:
    keep_off()
    times = Times()
    collector = Collector(lambda: times.now, lambda: times.used)
    before = passes_over_everything()
    kept = grow(60_000)
    times.pass_by(2, busy=0.01)
    assert collector.look()
    assert passes_over_everything() == before
    kept += grow(20_000)
    times.pass_by(2, busy=0.01)
    assert collector.look()
    assert passes_over_everything() == before + 1
    times.pass_by(2, busy=0.01)
    assert collector.look()
    assert passes_over_everything() == before + 1  # nothing was made since


def test_whoever_is_busy_is_left_alone_but_not_for_ever() -> None:
    keep_off()
    times = Times()
    collector = Collector(lambda: times.now, lambda: times.used)
    before = passes_over_everything()
    kept = grow(1_300_000)
    times.pass_by(2, busy=0.5)
    assert not collector.look()
    assert passes_over_everything() == before
    kept += grow(200_000)
    times.pass_by(2, busy=0.5)
    assert not collector.look()
    assert passes_over_everything() == before + 1


def test_passes_over_what_is_young_do_not_hide_how_much_there_is() -> None:
    keep_off()
    times = Times()
    collector = Collector(lambda: times.now, lambda: times.used)
    before = passes_over_everything()
    kept = []
    for step in range(160):
        kept += grow(500)  # never enough for a pass of the interpreter's own
        collector.look_at_young()
        if step == 80:
            gc.freeze()  # as after loading
    times.pass_by(2, busy=0.01)
    collector.look()
    assert passes_over_everything() == before + 1


def test_what_is_being_loaded_is_not_looked_at() -> None:
    keep_off()
    collector = Collector()
    before = young_passes()
    gc.disable()
    try:
        collector.look_at_young()
        assert young_passes() == before
    finally:
        gc.enable()
    collector.look_at_young()
    assert young_passes() == before + 1


def test_what_outlived_one_pass_is_not_looked_at_again_while_there_is_work() -> None:
    keep_off()
    collector = Collector()
    before = gc.get_stats()[1]["collections"]
    for _ in range(50):
        collector.look_at_young()
    kept = grow(100_000)  # 140 passes of the interpreter's own
    assert gc.get_stats()[1]["collections"] == before
    assert kept


async def test_who_is_busy_has_what_is_young_looked_at_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_off()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        times.pass_by(seconds, busy=0.5 if len(slept) < 150 else 0.0)
        if len(slept) == 303:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    times = Times()
    times.used = -1.0  # the first look is at a busy gateway
    collector = Collector(lambda: times.now, lambda: times.used)
    times.used = 0.0
    before = young_passes()
    with pytest.raises(asyncio.CancelledError):
        await collector.run()
    assert slept == [0.02] * 300 + [2.0] * 3
    assert young_passes() - before == 300
