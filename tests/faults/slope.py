"""How much something grows: samples of a process's lives, and the line through them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

_MIB = 1 << 20


class Sample(NamedTuple):
    """What a process held `age` seconds after it was started; memory in MiB."""

    age: float
    rss: float
    pss: float
    transcripts: int  # open files of them, of which the store keeps 256 at most
    descriptors: int  # all the others


def sample(pid: int, age: float) -> Sample:
    """Raises `OSError` where the process is gone."""
    proc = Path(f"/proc/{pid}")
    rollup = (proc / "smaps_rollup").read_text()
    sizes = {line.split(":")[0]: line.split() for line in rollup.splitlines()[1:]}
    rss, pss = (int(sizes[name][1]) * 1024 / _MIB for name in ("Rss", "Pss"))
    files = [_target(fd) for fd in (proc / "fd").iterdir()]
    transcripts = sum(file.endswith(".jsonl") for file in files)
    return Sample(age, round(rss, 2), round(pss, 2), transcripts, len(files) - transcripts)


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except FileNotFoundError:
        return ""  # closed meanwhile


class Slope(NamedTuple):
    """Growth an hour, half of its 95 % interval, the mean level; of how many points and lives."""

    per_hour: float
    margin: float
    level: float
    points: int
    lives: int


Points = list[tuple[float, float]]  # seconds, value


def minutes(points: Points, width: float = 60.0) -> Points:
    """The median of each minute: neighbours a few seconds apart would feign that much is known."""
    bins: dict[int, Points] = {}
    for point in points:
        bins.setdefault(int(point[0] // width), []).append(point)
    return [(fmean(at for at, _ in some), median(value for _, value in some)) for some in bins.values()]


def slope(lives: Iterable[Points]) -> Slope | None:
    """Least squares, one slope for all lives and a level for each; None where there are too few points."""
    lives = [points for points in lives if len(points) > 1]
    free = sum(map(len, lives)) - len(lives) - 1
    if free < 1:
        return None
    centred = [
        (at - fmean(at for at, _ in points), value - fmean(value for _, value in points))
        for points in lives
        for at, value in points
    ]
    spread = sum(at * at for at, _ in centred)
    rise = sum(at * value for at, value in centred) / spread
    error = math.sqrt(sum((value - rise * at) ** 2 for at, value in centred) / free / spread)
    level = fmean(value for points in lives for _, value in points)
    per_hour, margin = round(3600 * rise, 2), round(3600 * _quantile(free) * error, 2)
    return Slope(per_hour, margin, round(level, 2), len(centred), len(lives))


def _quantile(free: int) -> float:
    """Student's t at 97.5 %, by the expansion about the normal one (1 % off at 4 degrees of freedom)."""
    z = 1.959964
    return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
