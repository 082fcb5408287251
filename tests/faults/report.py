"""What all parts of the long form have come to, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tests.faults.pieces import figures
from tests.faults.results import KINDS, Line, failed, kinds, passed

# What adds up over trials: of a trial itself, and of what it measured.
_COUNTS = ("kills", "messages", "effects", "given_up")
_MEASURED = {
    "failing calls": "places",
    "flips": "count",
    "cuts": "count",
    "power loss": "states",
    "network": "faults",
    "fuzz": "runs",
    "file names": "pairs",
    "isolation": "tried",
    "soak": "messages",
}
_WORST = {  # measurement and member, in seconds
    "healthy after the disk was": ("disk", "healthy"),
    "everybody answered after the disk was": ("disk", "everybody_answered"),
    "deaf after a network fault": ("deaf", "seconds"),
    "a half-open browser let go of": ("half-open", "closed_after"),
    "stop": ("stop", "seconds"),
}


def report(parts: Mapping[str, tuple[bool, tuple[str, ...]]]) -> Iterator[str]:
    """A row for each part, of which is known whether it is over and what it judges; then the worst times."""
    rows: list[tuple[str, ...]] = [("part", "done", "trials", "seeds", *KINDS, "other", "minutes", "figures")]
    rows += [_row(name, over, judges) for name, (over, judges) in parts.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield ""
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    found = [figure for name in parts for figure in figures(name)]
    for what, (measurement, member) in _WORST.items():
        times = [one for one in found if one.get("measurement") == measurement and member in one]
        if times:
            worst = max(times, key=lambda one: float(one[member]))
            yield f"{what}: at worst {worst[member]} s of {len(times)} times ({_told(worst, member)})"
    for name in parts:
        for line in failed(name):
            yield f"failed: {line.get('repeat') or line['failure'][:200]}"


def _row(name: str, over: bool, judges: tuple[str, ...]) -> tuple[str, ...]:
    good, bad = passed(name), failed(name)
    broken = kinds(bad)
    tried = bool(good or bad)
    judged = [str(broken[kind]) if (tried and kind in judges) or broken[kind] else "·" for kind in KINDS]
    seconds = sum(line.get("seconds", 0) for line in [*good, *bad])
    return (
        name,
        "yes" if over else "not yet",
        str(len(good) + len(bad)),
        _seeds([*good, *bad]),
        *judged,
        str(broken["other"]),
        f"{seconds / 60:.0f}",
        _sums(good),
    )


def _seeds(lines: list[Line]) -> str:
    seeds = sorted({line["seed"] if "seed" in line else line["n"] for line in lines})
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}" if seeds else "-"


def _sums(lines: list[Line]) -> str:
    sums: Counter[str] = Counter()
    for line in lines:
        sums.update({name.replace("_", " "): line.get(name, 0) for name in _COUNTS})
        for figure in line.get("figures", ()):
            if member := _MEASURED.get(figure["measurement"]):
                sums[f"{figure['measurement']}: {member}"] += figure[member]
    return ", ".join(f"{name} {total:,}" for name, total in sums.items() if total)


def _told(figure: dict[str, Any], member: str) -> str:
    return ", ".join(f"{value}" for name, value in figure.items() if name not in ("measurement", member))
