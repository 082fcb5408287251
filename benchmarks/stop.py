"""How long `/stop` takes in each phase of a turn, until the turn is closed and none of its tools live."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from statistics import median, quantiles

from benchmarks.table import Row
from tests.fakes.stopping import Stopping

TIMES = 20


async def _measure(times: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as temporary:
        async with Stopping(Path(temporary) / "a") as stopping:
            taken: dict[str, list[float]] = {phase: [] for phase in stopping.phases}
            for _ in range(times):
                for phase, seconds in taken.items():
                    seconds.append(await stopping.stop(phase))
            return taken


def run(*, quick: bool) -> list[Row]:
    """Measure; the bar is 1,000 ms at the 99th percentile."""
    taken = asyncio.run(_measure(TIMES if quick else TIMES * 5))
    all_of_them = [seconds for phase in taken.values() for seconds in phase]
    return [
        *(Row(f"{phase}, p50", f"{median(seconds) * 1e3:.1f} ms") for phase, seconds in taken.items()),
        Row(f"any phase, p99 of {len(all_of_them)}", f"{quantiles(all_of_them, n=100)[98] * 1e3:.1f} ms"),
        Row("any phase, longest", f"{max(all_of_them) * 1e3:.1f} ms"),
    ]
