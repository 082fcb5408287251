"""One form of table for all benchmarks: for a terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from benchmarks.pairs import Pairs


class Row(NamedTuple):
    """What was measured, the floor of the same run where there is one, their ratio, and what is aimed at."""

    what: str
    measured: str
    floor: str = ""
    ratio: float | None = None
    aim: str = ""


def row(what: str, pairs: Pairs, shown: Callable[[float], str], aim: str = "") -> Row:
    """A row of medians; `shown` writes a figure with its unit."""
    return Row(what, shown(median(pairs.mine)), shown(median(pairs.floor)), pairs.ratio, aim)


def milliseconds(seconds: float) -> str:
    """A time that is best read in milliseconds."""
    return f"{seconds * 1e3:,.2f} ms"


def microseconds(seconds: float) -> str:
    """A time that is best read in microseconds."""
    return f"{seconds * 1e6:,.1f} µs"


def show(title: str, rows: list[Row], *, markdown: bool = False) -> None:
    """Print the rows under a title."""
    cells = [
        (row.what, row.measured, row.floor, "" if row.ratio is None else f"{row.ratio:.2f} ×", row.aim)
        for row in rows
    ]
    if markdown:
        print(f"\n### {title}\n\n| | measured | floor | ratio | aim |\n|---|--:|--:|--:|---|")
        for cell in cells:
            print("| " + " | ".join(cell) + " |")
        return
    width = max(len(row.what) for row in rows)
    print(f"\n{title}")
    for what, measured, floor, ratio, aim in cells:
        print(f"  {what:<{width}}  {measured:>13}  {floor:>13}  {ratio:>8}  {aim}".rstrip())
