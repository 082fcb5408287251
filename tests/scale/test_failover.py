"""The primary of the database is killed with -9 under load; a synchronous standby takes its place."""

import os
import random
from pathlib import Path

from tests.scale.failover import lost_its_primary
from tests.scale.stage import staged

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))


async def test_nothing_that_was_acknowledged_is_lost_with_the_primary(folder: Path) -> None:
    async with staged(folder, SEED, standby=True) as stage:
        figures = await lost_its_primary(stage, rate=30, calm=2.0)
    print(figures)
    assert figures["acknowledged_before"]
