"""`make bench`: every benchmark, one table each."""

from __future__ import annotations

import argparse

from benchmarks import store, turns, webchat
from benchmarks.table import show


def main() -> None:
    """Run them all; `--quick` takes about a minute."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    for title, rows in store.tables(quick=quick).items():
        show(title, rows)
    show("The WebSocket (floor: an aiohttp echo)", webchat.run(quick=quick))
    show("Turns over the Unix socket, model at 0 ms", turns.run(quick=quick))


if __name__ == "__main__":
    main()
