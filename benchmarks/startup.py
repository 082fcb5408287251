"""What a start costs until it is ready and until its first answer, and weighs; beside a bare import."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.pairs import FULL, QUICK, Pairs
from benchmarks.process import cpu, gateway, model_server, proportional
from benchmarks.table import Row, milliseconds, row
from benchmarks.turns import converse

_FLOOR = [sys.executable, "-c", "import aiohttp.web, msgspec"]
_SETTLING = 1.0  # seconds after which nothing of a start is still going on


def cpu_of(arguments: list[str], **environment: str) -> float:
    """CPU seconds of a whole process, its end included."""
    before = os.times()
    subprocess.run(arguments, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


class _Start:
    """One start, up to its first answer: seconds of the wall clock and of the CPU, and MiB in the end."""

    def __init__(self, url: str) -> None:
        began = time.perf_counter()
        with gateway(url) as daemon:
            self.ready, self.ready_cpu = time.perf_counter() - began, cpu(daemon.pid)
            self.bare = proportional(daemon.pid)  # the model's library is loaded from now on
            asyncio.run(converse(daemon.socket, "first", 1))
            self.answer, self.answer_cpu = time.perf_counter() - began, cpu(daemon.pid)
            time.sleep(_SETTLING)
            self.memory = proportional(daemon.pid)


def _imported() -> tuple[float, float]:
    """Seconds of the wall clock, and of the CPU, of the bare import."""
    began = time.perf_counter()
    spent = cpu_of(_FLOOR)
    return time.perf_counter() - began, spent


def run(*, quick: bool) -> list[Row]:
    """Measure in turns, so that a drift of the machine meets all of them."""
    floors, starts, looks = [], [], []
    status = [sys.executable, "-m", "gateway", "status"]
    with (
        tempfile.TemporaryDirectory(prefix="lunar-bench-") as temporary,
        model_server() as url,
        gateway(None, Path(temporary)),
    ):
        for _ in range(QUICK if quick else 2 * FULL):
            floors.append(_imported())
            starts.append(_Start(url))
            looks.append(cpu_of(status, LUNAR_DATA_DIR=temporary))
    walls, cpus = [wall for wall, _ in floors], [spent for _, spent in floors]
    readies = Pairs([start.ready for start in starts], walls)
    answers = Pairs([start.answer for start in starts], walls)
    before, after = (median(sizes) for sizes in zip(*((s.bare, s.memory) for s in starts), strict=True))
    return [
        row("from start to ready", readies, milliseconds, "≤ 2.5"),
        row("the same, CPU", Pairs([start.ready_cpu for start in starts], cpus), milliseconds),
        row("from start to the first answer", answers, milliseconds, "≤ 5"),
        row("the same, CPU", Pairs([start.answer_cpu for start in starts], cpus), milliseconds),
        row("CPU of `lunar status`", Pairs(looks, cpus), milliseconds),
        Row("memory (PSS) when ready, before the model's library", f"{before:.0f} MiB", aim="≤ 60 MiB"),
        Row("memory (PSS) after a first answer, idle", f"{after:.0f} MiB", aim="≤ 115 MiB"),
    ]
