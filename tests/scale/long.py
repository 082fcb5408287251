"""The long form: `python -m tests.scale.long [faults | failover | rolling]`.

A part runs in stretches of at most 25 minutes, each going on where the last one ended; every result is a line
of artifacts/torture.jsonl. A trial that failed is run again, with its seed, until it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.faults.results import failed, kinds, note, passed, quiet, results
from tests.scale.failover import lost_its_primary
from tests.scale.harms import Pace
from tests.scale.rolling import rolled
from tests.scale.stage import staged
from tests.scale.trial import Trial, tried

LONGEST = 10.0  # minutes of one trial: then it hangs
MINUTES = 25.0 - LONGEST
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


def left(part: str) -> list[int]:
    """The seeds that have not held yet: those that failed, and then those that were not tried."""
    name = f"scale {part}"
    again = [line["seed"] for line in failed(name)]
    known = {line["seed"] for line in results(name)}
    return again + [seed for seed in range(PARTS[part][1]) if seed not in known]


async def run(part: str, deadline: float) -> None:
    """One trial after the other, until the deadline; each is tried once."""
    for seed in left(part):
        if time.monotonic() > deadline:
            return
        began, failure, members = time.monotonic(), None, {}
        with tempfile.TemporaryDirectory(prefix="lunar-") as folder:
            try:
                async with asyncio.timeout(LONGEST * 60):
                    members = await PARTS[part][0](Path(folder), seed)
            except Exception as error:  # also what nobody expected is a result: the others are tried
                failure = f"{error!r}"[:8000]
                if not isinstance(error, AssertionError):
                    failure += "".join(traceback.format_exception(error))[-4000:]
        note(f"scale {part}", seed=seed, seconds=round(time.monotonic() - began), failure=failure, **members)


def main() -> int:
    """Run one part or all; 1 where a trial failed, in this stretch or before, and did not hold since."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=[*PARTS])
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="of a part, until nothing more is begun"
    )
    args = parser.parse_args()
    quiet()
    parts = [args.part] if args.part else [*PARTS]
    for part in parts:
        asyncio.run(run(part, time.monotonic() + args.minutes * 60))
    for part in parts:
        held, failures = len(passed(f"scale {part}")), failed(f"scale {part}")
        told = f"{len(failures)} failed {dict(kinds(failures))}"
        print(f"{part}: {held} of {PARTS[part][1]} trials held, {told}")
    return int(any(failed(f"scale {part}") for part in parts))


if __name__ == "__main__":
    sys.exit(main())
