"""The long form: `python -m tests.scale.long [faults | failover | rolling]`.

It goes on where the last stretch ended, by its seed; every result is a line of artifacts/torture.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.faults.results import failed, kinds, latest, note, results
from tests.scale.failover import lost_its_primary
from tests.scale.harms import Pace
from tests.scale.rolling import rolled
from tests.scale.stage import staged
from tests.scale.trial import Trial, tried

MINUTES = 25.0
FAULTS = 200
FAULTS_A_TRIAL = 20
FAILOVERS, ROLLINGS = 10, 5


async def faults(folder: Path, seed: int) -> dict[str, Any]:
    """Twenty faults, a frozen node for 30 seconds; in every second trial no node is left alone."""
    async with staged(folder, seed, patience=10.0) as stage:
        pace = Pace(spares=seed % 2 == 0)
        return await tried(stage.fleet, stage.proxies, Trial(seed, FAULTS_A_TRIAL), pace)


async def failover(folder: Path, seed: int) -> dict[str, Any]:
    """A primary killed under load."""
    async with staged(folder, seed, standby=True) as stage:
        return await lost_its_primary(stage, rate=30, calm=10.0)


async def rolling(folder: Path, seed: int) -> dict[str, Any]:
    """Three nodes restarted under fifty messages a second."""
    async with staged(folder, seed) as stage:
        return await rolled(stage.fleet, rate=50, calm=10.0)


Part = Callable[[Path, int], Awaitable[dict[str, Any]]]
PARTS: dict[str, tuple[Part, int]] = {
    "faults": (faults, FAULTS // FAULTS_A_TRIAL),
    "failover": (failover, FAILOVERS),
    "rolling": (rolling, ROLLINGS),
}


async def run(part: str, deadline: float) -> None:
    """Trials with the seeds 0, 1, … that have no result yet, until the deadline."""
    name = f"scale {part}"
    work, count = PARTS[part]
    done = {line["seed"] for line in results(name)}
    for seed in (seed for seed in range(count) if seed not in done):
        if time.monotonic() > deadline:
            return
        began, failure, members = time.monotonic(), None, {}
        with tempfile.TemporaryDirectory(prefix="lunar-") as folder:
            try:
                members = await work(Path(folder), seed)
            except AssertionError as error:
                failure = str(error)[:2000]
        note(name, seed=seed, seconds=round(time.monotonic() - began), failure=failure, **members)


def main() -> int:
    """Run one part or all; 1 where a trial failed, in this stretch or an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=[*PARTS])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    args = parser.parse_args()
    parts = [args.part] if args.part else [*PARTS]
    for part in parts:
        asyncio.run(run(part, time.monotonic() + args.minutes * 60))
    for part in parts:
        lines, failures = latest(results(f"scale {part}")), failed(f"scale {part}")
        print(
            f"{part}: {len(lines)} of {PARTS[part][1]} trials, {len(failures)} failed {dict(kinds(failures))}"
        )
    return int(any(failed(f"scale {part}") for part in parts))


if __name__ == "__main__":
    sys.exit(main())
