"""The collector's passes over everything: in nobody's way, and never put off for ever."""

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
    gc.set_threshold(*before)


def younger_passes(count: int) -> None:
    for _ in range(count):
        gc.collect(1)


def test_nothing_is_looked_at_by_itself() -> None:
    keep_off()
    *_, everything = gc.get_threshold()
    assert everything > 1_000_000


def test_a_quiet_moment_is_used_once_a_pass_is_due() -> None:
    keep_off()
    times = Times()
    collector = Collector(lambda: times.now, lambda: times.used)
    times.pass_by(2, busy=0.01)
    assert not collector.look()
    younger_passes(230)
    times.pass_by(2, busy=0.01)
    assert collector.look()
    assert gc.get_count()[2] == 0


def test_whoever_is_busy_is_left_alone_but_not_for_ever() -> None:
    keep_off()
    times = Times()
    collector = Collector(lambda: times.now, lambda: times.used)
    younger_passes(4599)
    times.pass_by(2, busy=0.5)
    assert not collector.look()
    younger_passes(1)
    times.pass_by(2, busy=0.5)
    assert collector.look()
