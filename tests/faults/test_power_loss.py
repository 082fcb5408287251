"""Power failures: a store lives on a disk that forgets, tears and reorders what was not synced.

`LUNAR_TEST_TORTURE=1` makes it 50,000 states; LUNAR_TEST_SEED repeats a run that failed.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from session.store import Store
from tests.faults.figures import TORTURE, figure
from tests.faults.lives import SESSIONS, Life, moments
from tests.faults.power import Disk

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
LIVES, STATES = (500, 100) if TORTURE else (7, 50)
FIRST = int(os.environ.get("LUNAR_TEST_FIRST", "0"))  # the life to begin with: the last run's `next`
PART = float(os.environ.get("LUNAR_TEST_SECONDS", "1440"))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder that costs no disk: thousands of them are made."""
    shm = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="lunar-", dir=shm if os.access(shm, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


def die(folder: Path, seed: str, states: int) -> int:
    """One life and so many of its ends, half of them with a second end in the recovery."""
    dice = random.Random(seed)
    alive = folder / "alive"
    alive.mkdir()
    disk = Disk(alive)
    life = Life(alive / "data", disk, dice)
    with disk.watching():
        asyncio.run(life.play(30))
    try:
        for number, moment in enumerate(moments(life, dice, states)):
            state = folder / str(number)
            state.mkdir()
            disk.left(moment, state, dice)
            if number % 2:
                state = _again(folder / f"{number}-again", state, dice)
            asyncio.run(life.judge(state / "data", moment))
            shutil.rmtree(folder / str(number))
    except AssertionError as error:
        raise AssertionError(f"LUNAR_TEST_SEED={seed.partition('/')[0]}, life {seed}: {error}") from error
    return len(disk.steps)


def _again(folder: Path, state: Path, dice: random.Random) -> Path:
    """The power fails once more, while what it left is being repaired."""
    disk = Disk(state)

    async def recover() -> None:
        store = Store(state / "data", max_open=2, threads=2)
        store.start()
        for of in SESSIONS:
            await store.after(of, None, 10)
        await store.tidy_archive()
        await store.close()

    with disk.watching():
        asyncio.run(recover())
    folder.mkdir()
    disk.left(dice.randint(0, len(disk.steps)), folder, dice)
    return folder


def test_power_fails_at_any_moment(memory: Path) -> None:
    began, number, steps = time.monotonic(), FIRST, 0
    while number < LIVES and time.monotonic() - began < PART:
        folder = memory / str(number)
        folder.mkdir()
        steps += die(folder, f"{SEED}/{number}", STATES)
        shutil.rmtree(folder)
        number += 1
    where = {"first": FIRST, "next": number, "of": LIVES}
    states = (number - FIRST) * STATES
    figure("power loss", seed=SEED, **where, steps=steps, states=states, lost=0, twice=0, corrupt=0)
