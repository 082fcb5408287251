"""A rolling restart of three nodes under fifty messages a second is seen by nobody."""

import os
import random
from pathlib import Path

from tests.scale.rolling import rolled
from tests.scale.stage import staged

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))


async def test_a_rolling_restart_under_load(folder: Path) -> None:
    async with staged(folder, SEED) as stage:
        figures = await rolled(stage.fleet, rate=50, calm=1.0)
    print(figures)
    assert figures["messages"] > 100
