"""`make bench`: every benchmark, one table each."""

from __future__ import annotations

import argparse

from benchmarks import sessions, startup, stop, store, telegram, turns, webchat
from benchmarks.table import show


def main() -> None:
    """Run them all; `--quick` takes about three minutes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    for title, rows in store.tables(quick=quick).items():
        show(title, rows)
    show("A start, and `lunar status` (floor: importing aiohttp and msgspec)", startup.run(quick=quick))
    show("The WebSocket (floor: an aiohttp echo)", webchat.run(quick=quick))
    show("Turns over the Unix socket, model at 0 ms", turns.run(quick=quick))
    show("Turns, one at a time", sessions.run(quick=quick))
    show("Stopping a turn, tools and all", stop.run(quick=quick))
    show("Telegram (floor: without a flood wait)", telegram.run(quick=quick))


if __name__ == "__main__":
    main()
