"""What a turn costs in a session that has a long past, and what a tool's round costs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

from benchmarks.floor_calls import bare_calls
from benchmarks.pairs import paired
from benchmarks.process import Gateway, cpu, gateway, model_server
from benchmarks.table import Row, milliseconds, row
from benchmarks.turns import converse
from session import events, ids
from session.events import Assistant, System, User

SHORT, LENGTHS, QUICK_LENGTHS = 10, (10_000, 1_000_000), (10_000,)
TURNS, QUICK_TURNS = 100, 40
# As many earlier messages in all; a summary now and then would make turns uneven.
HISTORY = {"LUNAR_AGENTS__MAIN__HISTORY_TURNS": "6", "LUNAR_AGENTS__MAIN__SUMMARIES": "false"}
TOOL = "get_current_datetime"


def _write(directory: Path, name: str, count: int) -> None:
    """A session of so many events, as earlier turns left it."""
    session = ids.SessionId(f"agent:main:cli:{name}")
    path = directory / "sessions" / ids.file_name(session)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(events.encode(System(name="session", content=session, format=1, ts=events.now())))
        for number in range(count // 2):
            turn, asked = f"t{number}", (f"old{number}",)
            file.write(events.encode(User(content=f"Question {number}", id=asked[0], ts=events.now())))
            answer = Assistant(content="Answer", turn=turn, answers=asked, finish="stop", ts=events.now())
            file.write(events.encode(answer))


def _turn(daemon: Gateway, name: str, turns: int) -> Callable[[], float]:
    """A function that has so many turns in a session; CPU seconds of one."""
    rounds = count()

    def measure() -> float:
        began = cpu(daemon.pid)
        asyncio.run(converse(daemon.socket, name, turns, f"p{next(rounds)}-"))
        return (cpu(daemon.pid) - began) / turns

    return measure


def run(*, quick: bool) -> list[Row]:
    """Measure, in turns with the short session."""
    turns, rows = QUICK_TURNS if quick else TURNS, []
    lengths = QUICK_LENGTHS if quick else LENGTHS
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as temporary:
        directory = Path(temporary)
        for length in (SHORT, *lengths):
            _write(directory, f"s{length}", length)
        with model_server() as url, gateway(url, directory, **HISTORY) as daemon:
            short = _turn(daemon, f"s{SHORT}", turns)
            for length in lengths:
                pairs = paired(_turn(daemon, f"s{length}", turns), short, quick=quick)
                what = f"CPU a turn, {length:,} earlier events (floor: {SHORT})"
                rows.append(row(what, pairs, milliseconds, "≤ 1.10"))
    return [*rows, _round(turns, quick=quick)]


def _round(turns: int, *, quick: bool) -> Row:
    with (
        model_server() as plain,
        bare_calls(plain) as call,
        model_server("--tool", TOOL) as url,
        gateway(url, None, **HISTORY) as daemon,
    ):
        pairs = paired(_turn(daemon, "s", turns), lambda: 2 * call(2 * turns, 1).cpu, quick=quick)
    return row("CPU a turn with a round of tools (floor: two calls)", pairs, milliseconds)
