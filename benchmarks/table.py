"""One table for all benchmarks."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """What was measured, the floor of the same run where there is one, and their ratio."""

    what: str
    measured: str
    floor: str = ""
    ratio: float | None = None


def show(title: str, rows: list[Row]) -> None:
    """Print the rows under a title."""
    width = max(len(row.what) for row in rows)
    print(f"\n{title}")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:6.2f} ×"
        print(f"  {row.what:<{width}}  {row.measured:>12}  {row.floor:>12}  {ratio:>9}")
