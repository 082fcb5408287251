"""Three nodes, a hundred sessions: kill -9, SIGSTOP, cut connections; 8 of them here.

The seed of a failed run is in its message; LUNAR_TEST_SEED repeats it.
200 of them: `python -m tests.scale.long faults`.
"""

import os
import random
from pathlib import Path

from tests.scale.harms import Pace
from tests.scale.stage import staged
from tests.scale.trial import Trial, tried

FAULTS = int(os.environ.get("LUNAR_TEST_FAULTS", "8"))
QUICK = Pace(frozen=12.0, down=(0.0, 3.0), pause=(0.3, 2.0), unreachable=(0.5, 3.0))


async def test_nodes_and_connections_die_while_three_channels_talk(folder: Path) -> None:
    seed = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    trial = Trial(seed, FAULTS, at_most=None)  # the long form judges the seconds, on a machine of its own
    async with staged(folder, trial.seed) as stage:
        figures = await tried(stage.fleet, stage.proxies, trial, QUICK)
    print(trial, figures)
    assert figures["messages"] >= trial.sessions
    assert figures["deaths"]  # whether something was open at one is chance, and on a busy machine rarely so
