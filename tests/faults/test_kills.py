"""kill -9 at random while people on three channels talk: a few here, a thousand by `make torture`.

The seed of a failed run is in its message; LUNAR_TEST_SEED repeats it, LUNAR_TEST_KILLS makes it longer.
"""

import os
import random
from pathlib import Path

from tests.faults.kills import Killing, killed

KILLS = int(os.environ.get("LUNAR_TEST_KILLS", "8"))


async def test_killed_while_three_channels_talk(folder: Path) -> None:
    seed = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    figures = await killed(folder / "w", Killing(seed, KILLS))
    print(f"{KILLS} kills, seed {seed}: {figures}")
    assert figures.messages > KILLS
