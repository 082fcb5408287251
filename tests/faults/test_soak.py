"""A soak of seconds, and the slope that a soak of hours is judged by; the long one is `make soak HOURS=2`.

LUNAR_TEST_SEED repeats a run, LUNAR_TEST_HOURS makes it longer.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults.slope import Points, Slope, minutes, sample, slope
from tests.faults.soak import LEAK, Plan, leaks, soaked

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 31)))
HOURS = float(os.environ.get("LUNAR_TEST_HOURS", "0.003"))


def life(level: float, an_hour: float, minutes: int, dice: random.Random | None = None) -> Points:
    """What is held, minute by minute, by something that grows so much."""
    noise = dice.gauss if dice else lambda *_: 0.0
    return [(60.0 * n, level + an_hour * n / 60 + noise(0, 1)) for n in range(minutes)]


def test_a_slope_is_that_of_the_lives_and_not_from_life_to_life() -> None:
    found = slope([life(100, 6, 20), life(300, 6, 40)])
    assert found == Slope(per_hour=6.0, margin=0.0, level=234.95, points=60, lives=2)


@pytest.mark.parametrize("an_hour", [0.0, 5.0])
def test_its_interval_holds_what_is_true_in_nineteen_of_twenty(an_hour: float) -> None:
    dice, held = random.Random(1), 0
    for _ in range(400):
        found = slope([life(80, an_hour, 8, dice), life(90, an_hour, 12, dice)])
        assert found is not None
        held += abs(found.per_hour - an_hour) <= found.margin
    assert 0.92 < held / 400 < 0.98


def test_too_little_is_no_slope() -> None:
    assert slope([]) is None
    assert slope([life(1, 1, 2)]) is None
    assert slope([life(1, 1, 1)] * 10) is None


def test_a_peak_of_a_moment_does_not_count() -> None:
    held = [(float(second), 1000.0 if second == 70 else 10.0) for second in range(180)]
    assert minutes(held) == [(29.5, 10.0), (89.5, 10.0), (149.5, 10.0)]


def test_what_grows_is_a_leak_and_what_may_grow_is_none() -> None:
    dice = random.Random(2)
    rising, flat = (slope([life(100, an_hour, 40, dice)]) for an_hour in (40, 0))
    found = {"rss": rising, "pss": flat, "descriptors": None}
    assert [text.split()[0] for text in leaks(found, LEAK)] == ["rss"]


def test_what_a_process_holds(folder: Path) -> None:
    before = sample(os.getpid(), 1.0)
    assert before.rss >= before.pss > 5
    assert before.descriptors > 2
    with (folder / "a.jsonl").open("w"), (folder / "b").open("w"):
        mine = sample(os.getpid(), 1.0)
    assert mine.transcripts == before.transcripts + 1
    assert mine.descriptors == before.descriptors + 1


async def test_some_seconds_of_it(folder: Path) -> None:
    soaked_, stop = await soaked(folder, Plan(HOURS, SEED))
    assert soaked_["a_second"] == pytest.approx(5, rel=0.2)
    assert soaked_["faults"] >= 4
    assert soaked_["slopes_an_hour"]["rss"]["level"] > 10
    assert soaked_["rested"] >= 1
    assert stop["seconds"] < 25
