"""What an installation brings: its distributions, and their bytes on disk."""

from __future__ import annotations

from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.table import Row

_PROJECT = "lunar-gateway"


def _closure() -> dict[str, Distribution]:
    """The project and all that it needs, without what only its developers do."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(_PROJECT)]
    while waiting:
        asked = waiting.pop()
        known = asked.name in found
        here = found.setdefault(asked.name, distribution(asked.name))
        for line in here.requires or ():
            needed = Requirement(line)
            wanted = [{"extra": extra} for extra in asked.extras] or ([] if known else [{"extra": ""}])
            if needed.name not in found and any(
                needed.marker is None or needed.marker.evaluate(extra) for extra in wanted
            ):
                waiting.append(needed)
    return found


def _size(of: Distribution) -> int:
    paths = [Path(str(of.locate_file(file))) for file in of.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def run(*, quick: bool) -> list[Row]:
    """Look; compiled bytecode counts where it is there."""
    sizes = {name: _size(found) for name, found in _closure().items() if name != _PROJECT}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    return [
        Row("distributions, without the gateway itself", str(len(sizes))),
        Row("their size", f"{sum(sizes.values()) / 1e6:.0f} MB"),
        *(Row(f"of it {name}", f"{sizes[name] / 1e6:.0f} MB") for name in largest),
    ]
