"""What a start and a look at the status cost, beside Python importing aiohttp and msgspec."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.process import cpu, gateway
from benchmarks.table import Row

_FLOOR = [sys.executable, "-c", "import aiohttp.web, msgspec"]


def _cpu_of(arguments: list[str], **environment: str) -> float:
    """CPU seconds of a whole process, its end included."""
    before = os.times()
    subprocess.run(arguments, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _start() -> float:
    """CPU seconds of a daemon up to the moment when it says that it is ready."""
    with gateway(None) as daemon:
        return cpu(daemon.pid)


def run(*, quick: bool) -> list[Row]:
    """Measure in turns, so that a drift of the machine meets all of them."""
    rounds = 5 if quick else 15
    floors, starts, looks = [], [], []
    status = [sys.executable, "-m", "gateway", "status"]
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as temporary, gateway(None, Path(temporary)):
        for _ in range(rounds):
            floors.append(_cpu_of(_FLOOR))
            looks.append(_cpu_of(status, LUNAR_DATA_DIR=temporary))
            starts.append(_start())
    floor = median(floors)
    return [
        Row(name, f"{median(found) * 1e3:.0f} ms", f"{floor * 1e3:.0f} ms", median(found) / floor)
        for name, found in (("CPU from start to ready", starts), ("CPU of `lunar status`", looks))
    ]
