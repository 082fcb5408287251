"""What a turn costs in a session that has a long past, and what a tool's round costs."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.process import cpu, gateway, model_server
from benchmarks.table import Row
from benchmarks.turns import converse, floor
from session import events, ids
from session.events import Assistant, System, User

LONG, SHORT = 100_000, 10
# As many earlier messages in both; a summary now and then would make turns uneven.
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


def run(*, quick: bool) -> list[Row]:
    """Measure; interleaved pairs, the median of their ratios."""
    turns = 60 if quick else 150
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as temporary:
        directory = Path(temporary)
        _write(directory, "long", LONG)
        _write(directory, "short", SHORT)
        with model_server() as url, gateway(url, directory, **HISTORY) as daemon:
            spent: dict[str, list[float]] = {"long": [], "short": []}
            for pair in range(8):
                for name in ("long", "short") if pair % 2 else ("short", "long"):
                    began = cpu(daemon.pid)
                    asyncio.run(converse(daemon.socket, name, turns, f"p{pair}-"))
                    spent[name].append((cpu(daemon.pid) - began) / turns)
    # Without the first pair, which opens the sessions.
    pairs = list(zip(spent["long"], spent["short"], strict=True))[1:]
    ratio = median(long / short for long, short in pairs)
    long, short = (f"{median(times) * 1e3:.2f} ms" for times in (spent["long"][1:], spent["short"][1:]))
    return [Row(f"CPU a turn, {LONG:,} earlier events (floor: {SHORT})", long, short, ratio), _round(turns)]


def _round(turns: int) -> Row:
    with model_server("--tool", TOOL) as url, gateway(url, None, **HISTORY) as daemon:
        asyncio.run(converse(daemon.socket, "warm", 5, "w"))
        began = cpu(daemon.pid)
        asyncio.run(converse(daemon.socket, "s", turns, "m"))
        per_turn = (cpu(daemon.pid) - began) / turns
    with model_server() as url:
        _, per_call = floor(url, 2 * turns, 1)
    return Row(
        "CPU a turn with a round of tools (floor: two calls)",
        f"{per_turn * 1e3:.2f} ms",
        f"{2 * per_call * 1e3:.2f} ms",
        per_turn / (2 * per_call),
    )
