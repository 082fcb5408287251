"""The long form: `python -m tests.faults.torture PART`.

It runs in stretches of at most 25 minutes, each going on where the last one ended; every result is a line of
artifacts/torture.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.failpoints import run
from tests.faults.kills import Killing, killed

RESULTS = Path(__file__).parents[2] / "artifacts" / "torture.jsonl"
MINUTES = 25.0
AT_ONCE = 4  # trials; they mostly wait
KILLS = 1000
KILLS_A_TRIAL = 20


def results(part: str) -> list[dict[str, Any]]:
    """What this part has come to so far."""
    if not RESULTS.exists():
        return []
    lines = (json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["part"] == part]


def note(part: str, **members: Any) -> None:
    """Append a result."""
    RESULTS.parent.mkdir(exist_ok=True)
    line = json.dumps({"part": part, **members})
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line, flush=True)


async def failpoints(deadline: float) -> None:
    """Every place, n = 1, 2, 3 …, until a run passes through."""
    known = results("failpoints")
    passed = min((line["n"] for line in known if not line["crashed"]), default=None)
    done = {line["n"] for line in known}
    numbers = iter(n for n in range(1, 100_000) if n not in done)

    async def work() -> None:
        nonlocal passed
        for n in numbers:
            if time.monotonic() > deadline or (passed is not None and n > passed):
                return
            places: list[str] = []
            crashed, failure = True, None
            with tempfile.TemporaryDirectory(prefix="lunar-") as folder:
                try:
                    places, crashed = await run(Path(folder) / "w", f"{n}:exit")
                except AssertionError as error:
                    failure = str(error)[:2000]
            note("failpoints", n=n, crashed=crashed, place=places[-1] if places else None, failure=failure)
            if not crashed:
                passed = n if passed is None else min(passed, n)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def kills(deadline: float) -> None:
    """Random kills, twenty a trial, until there were a thousand."""
    known = results("kills")
    seed, total = len(known), sum(line["kills"] for line in known)
    while total < KILLS and time.monotonic() < deadline:
        trial = Killing(seed=seed, kills=KILLS_A_TRIAL)
        members: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(prefix="lunar-") as folder:
            try:
                members = (await killed(Path(folder) / "w", trial))._asdict()
            except AssertionError as error:
                members = {"failure": str(error)[:2000]}
        note("kills", **trial._asdict(), **members)
        seed, total = seed + 1, total + KILLS_A_TRIAL


SUMMED = ("kills", "messages", "effects", "given_up")
PARTS = {"failpoints": failpoints, "kills": kills}


def report() -> Iterator[str]:
    """What all parts have come to."""
    for part in PARTS:
        lines = results(part)
        failures = [line for line in lines if line.get("failure")]
        sums = {name: sum(line.get(name, 0) for line in lines) for name in SUMMED}
        yield f"{part}: {len(lines)} trials, {len(failures)} failed, {sums}"


def main() -> int:
    """Run a part; 1 where a trial of it failed, in this stretch or an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=[*PARTS])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    args = parser.parse_args()
    for part in [args.part] if args.part else PARTS:
        asyncio.run(PARTS[part](time.monotonic() + args.minutes * 60))
    print(*report(), sep="\n")
    return int(any(line.get("failure") for part in PARTS for line in results(part)))


if __name__ == "__main__":
    sys.exit(main())
