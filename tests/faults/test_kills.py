"""kill -9 at random while people on three channels talk: fifty here, a thousand by `make torture`.

The seed of a failed trial is in its message; LUNAR_TEST_SEED repeats it, LUNAR_TEST_KILLS makes it longer.
"""

import asyncio
import os
import random
from pathlib import Path

from tests.faults.kills import Killing, killed

KILLS = int(os.environ.get("LUNAR_TEST_KILLS", "50"))


async def test_killed_while_three_channels_talk(folder: Path) -> None:
    seed = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    # Two gateways at once, each with people of its own: most of a trial's time is waiting.
    trials = [Killing(seed, (KILLS + 1) // 2), Killing(seed + 1, KILLS // 2)]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(killed(folder / f"w{trial.seed}", trial)) for trial in trials]
    for trial, done in zip(trials, running, strict=True):
        figures = done.result()
        print(f"{trial}: {figures}")
        assert figures.messages > trial.kills
