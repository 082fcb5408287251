"""`make bench`: every benchmark, one table each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import (
    install,
    machine,
    many,
    scale,
    sessions,
    startup,
    stop,
    store,
    streaming,
    telegram,
    turns,
    webchat,
)
from benchmarks.table import Row, show


class Benchmark(NamedTuple):
    """A table; `quick` says whether it is among those of the one minute."""

    title: str
    run: Callable[..., list[Row]]
    quick: bool = True


BENCHMARKS = {
    "turns": Benchmark("Turns over the Unix socket, model at 0 ms (floor: the calls alone)", turns.run),
    "sessions": Benchmark("Turns, one at a time", sessions.run),
    "streaming": Benchmark(
        "500 replies (200 where it is to be quick) at 40 tokens a second each (floor: a bare relay)",
        streaming.run,
    ),
    "webchat": Benchmark("The WebSocket (floor: aiohttp)", webchat.run),
    "appends": Benchmark("Durable appends (floor: write and fdatasync in 16 threads)", store.appends),
    "tails": Benchmark("The end of a transcript (floor: of a short one)", store.tails),
    "directories": Benchmark("A data directory (floor: one of 100 sessions)", store.starts),
    "many": Benchmark("A gateway on many sessions (floor: one on 100)", many.run, quick=False),
    "startup": Benchmark("A start (floor: importing aiohttp.web and msgspec)", startup.run),
    "install": Benchmark("An installation", install.run),
    "stop": Benchmark("Stopping a turn, tools and all", stop.run, quick=False),
    "scale": Benchmark("Over PostgreSQL", scale.run, quick=False),
    "telegram": Benchmark("Telegram (floor: without a flood wait)", telegram.run, quick=False),
}


def main() -> None:
    """Run those that are named, or else all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="less of everything, without the slow ones")
    parser.add_argument("--markdown", action="store_true", help="as it stands in benchmarks/README.md")
    given = parser.parse_args()
    if unknown := [name for name in given.only if name not in BENCHMARKS]:
        parser.error(f"there is no {unknown[0]!r}: choose from {', '.join(BENCHMARKS)}")
    mark = "- " if given.markdown else "  "
    for fact, value in machine.described().items():
        print(f"{mark}{fact}: {value}", flush=True)
    for name in given.only or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        if given.only or benchmark.quick or not given.quick:
            show(benchmark.title, benchmark.run(quick=given.quick), markdown=given.markdown)


if __name__ == "__main__":
    main()
