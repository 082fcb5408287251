"""The long form: `python -m tests.faults.torture [PART]`, all that is not done where none is named.

A part runs in stretches of at most 25 minutes, each going on where the last one ended; every result is a line
of artifacts/torture.jsonl. A trial that failed is run again, with its seed, until it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import pieces, soak
from tests.faults.failpoints import run
from tests.faults.kills import Killing, killed
from tests.faults.pieces import FUZZ, GRACE, Piece, of
from tests.faults.report import report
from tests.faults.results import KINDS, failed, note, passed, quiet, results

MINUTES = 25.0 - GRACE / 60
AT_ONCE = 3  # trials; they mostly wait
IN_A_ROW = 5  # runs that pass through, after which no place is left
KILLS = 1000
KILLS_A_TRIAL = 20
SOAK = soak.Plan(hours=0.3, seed=1)


class Part(NamedTuple):
    """How it goes on until a deadline, whether it is over, and which promises it judges."""

    run: Callable[[float], Coroutine[Any, Any, None]]
    over: Callable[[], bool]
    judges: tuple[str, ...] = KINDS


async def failpoints(deadline: float) -> None:
    """Every place, n = 1, 2, 3 …, until a run passes through."""
    done = {line["n"] for line in passed("failpoints")}
    numbers = iter(n for n in range(1, 100_000) if n not in done)

    async def work() -> None:
        for n in numbers:
            if time.monotonic() > deadline or n > (_through() or n):
                return
            places: list[str] = []
            crashed, failure, began = True, None, time.monotonic()
            with tempfile.TemporaryDirectory(prefix="lunar-") as folder:
                try:
                    places, crashed = await run(Path(folder) / "w", f"{n}:exit")
                except Exception as error:
                    failure = _told(error)
            place, seconds = places[-1] if places else None, round(time.monotonic() - began)
            note("failpoints", n=n, crashed=crashed, place=place, seconds=seconds, failure=failure)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def _told(error: Exception) -> str:
    return (str(error) if isinstance(error, AssertionError) else repr(error))[:2000]


def _through() -> int | None:
    """The first number that no place had, nor the next ones: one run has some places more than another."""
    whole = {line["n"] for line in passed("failpoints") if not line["crashed"]}
    return min((n for n in whole if whole.issuperset(range(n, n + IN_A_ROW))), default=None)


def _failpoints_over() -> bool:
    through = _through()
    return through is not None and {line["n"] for line in passed("failpoints")} >= set(range(1, through))


async def kills(deadline: float) -> None:
    """Random kills, twenty a trial, until there were a thousand."""
    again = [line["seed"] for line in failed("kills")]
    known = {line["seed"] for line in results("kills")}
    seeds = iter([*again, *(seed for seed in range(100_000) if seed not in known)])

    async def work() -> None:
        while not _kills_over() and time.monotonic() < deadline:
            trial, began = Killing(seed=next(seeds), kills=KILLS_A_TRIAL), time.monotonic()
            members: dict[str, Any] = {}
            with tempfile.TemporaryDirectory(prefix="lunar-") as folder:
                try:
                    members = (await killed(Path(folder) / "w", trial))._asdict()
                except Exception as error:
                    members = {"failure": _told(error)}
            note("kills", **trial._asdict(), **members, seconds=round(time.monotonic() - began))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def _kills_over() -> bool:
    done: int = sum(line["kills"] for line in passed("kills"))
    return done >= KILLS


async def soaking(deadline: float) -> None:
    """A short one; `make soak` makes it as long as one likes."""
    if time.monotonic() < deadline:
        await soak.run(SOAK)


def _soaked() -> bool:
    return any(line["hours"] >= SOAK.hours for line in passed("soak"))


def _tests(name: str, of_it: list[Piece], judges: tuple[str, ...] = KINDS) -> Part:
    return Part(partial(pieces.run, name, of_it), lambda: not pieces.left(name, of_it), judges)


_STORE = ("lost", "twice", "corrupt")
PARTS = {
    "store": _tests("store", of("tests/faults/test_store.py", "tests/session/test_store_machine.py"), _STORE),
    "power": _tests("power", of("tests/faults/test_power_loss.py"), _STORE),
    "disk": _tests("disk", of("tests/faults/test_disk.py")),
    "network": _tests("network", of("tests/faults/test_network.py")),
    "pressure": _tests("pressure", of("tests/faults/test_pressure.py")),
    "fuzz": _tests("fuzz", FUZZ, ()),
    "isolation": _tests("isolation", of("tests/faults/test_isolation.py")),
    "planted": _tests("planted", of("tests/faults/test_planted_bugs.py"), ()),
    "failpoints": Part(failpoints, _failpoints_over),
    "kills": Part(kills, _kills_over),
    "soak": Part(soaking, _soaked),
}


def main() -> int:
    """Run parts; 1 where a trial failed, in this stretch or an earlier one, and was not mended since."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=[*PARTS, "report"], help="report: only the table")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="of a part, until nothing more is begun"
    )
    args = parser.parse_args()
    quiet()
    chosen = [name for name in PARTS if args.part in (None, name)]
    for name in chosen:
        if not PARTS[name].over():
            print(f"{name}: goes on", flush=True)
            asyncio.run(PARTS[name].run(time.monotonic() + args.minutes * 60))
    print(*report({name: (part.over(), part.judges) for name, part in PARTS.items()}), sep="\n")
    return int(any(failed(name) for name in PARTS))


if __name__ == "__main__":
    sys.exit(main())
