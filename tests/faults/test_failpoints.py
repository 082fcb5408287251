"""Durable steps and sends crashed on purpose: a few here, every one of them by `make torture`.

A failure names what repeats it: `LUNAR_TEST_FAILPOINT=37:exit pytest tests/faults/test_failpoints.py`.
"""

import asyncio
import os
import random
from pathlib import Path

from tests.faults.failpoints import run

ONE = os.environ.get("LUNAR_TEST_FAILPOINT")
TRIALS = 4


async def test_some_places(folder: Path) -> None:
    if ONE:
        places, crashed = await run(folder / "one", ONE)
        print(f"{places[-1]!r} was the last of {len(places)} places; crashed: {crashed}")
        return
    places, crashed = await run(folder / "all", "1000000:exit")
    assert not crashed
    assert len(places) > 300, "hardly anything is wrapped"
    # Not the last ones: no two runs reach quite as many.
    chosen = random.Random().sample(range(1, len(places) * 3 // 4), TRIALS)
    trials = [run(folder / str(n), f"{n}:exit") for n in chosen]
    assert all(outcome.crashed for outcome in await asyncio.gather(*trials))
