"""Turns per second and CPU per turn over the Unix socket, beside a bare loop of the same openai calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median, quantiles

import msgspec

from benchmarks.floor_calls import Cost, bare_calls
from benchmarks.pairs import Pairs, paired
from benchmarks.process import Gateway, cpu, gateway, model_server, resident
from benchmarks.table import Row, milliseconds, row

SESSIONS, TURNS, QUICK_TURNS = 50, 10, 5
# The model echoes: of a whole conversation, thousands of chunks that no real summary has.
PLAIN = {"LUNAR_AGENTS__MAIN__SUMMARIES": "false"}


async def converse(path: Path, name: str, turns: int, prefix: str = "m") -> list[float]:
    """So many turns in one session, message ids beginning with `prefix`; how long each took, in seconds."""
    latencies: list[float] = []
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    writer.write(msgspec.json.encode({"type": "hello", "protocol": 1, "session": name}) + b"\n")
    for number in range(turns):
        began = time.perf_counter()
        message = {"type": "message", "id": f"{prefix}{number}", "text": f"{name} says {number}"}
        writer.write(msgspec.json.encode(message) + b"\n")
        while True:
            line = await reader.readline()
            if line.startswith(b'{"type":"done"'):
                break
            if not line or line.startswith(b'{"type":"error"'):
                raise RuntimeError(f"the gateway said {line!r}")
        latencies.append(time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()
    return latencies


async def _load(path: Path, prefix: str, sessions: int, turns: int) -> list[float]:
    names = [f"{prefix}{number}" for number in range(sessions)]
    each = await asyncio.gather(*(converse(path, name, turns) for name in names))
    return [latency for latencies in each for latency in latencies]


def _turns(daemon: Gateway, turns: int) -> Callable[[], Cost]:
    """A function that has 50 sessions talk, new ones each time; what a turn cost."""
    rounds, total = count(), SESSIONS * turns

    def load() -> Cost:
        used, began = cpu(daemon.pid), time.perf_counter()
        asyncio.run(_load(daemon.socket, f"r{next(rounds)}-", SESSIONS, turns))
        return Cost((time.perf_counter() - began) / total, (cpu(daemon.pid) - used) / total)

    return load


def _rate(pairs: Pairs) -> Row:
    """Turns a second; a share of the floor is meant, so that the ratio is the other way round."""
    mine, floor = (1 / median(seconds) for seconds in pairs)
    what = f"turns a second, {SESSIONS} sessions"
    return Row(what, f"{mine:.0f}", f"{floor:.0f}", 1 / pairs.ratio, "≥ 0.60")


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    turns = QUICK_TURNS if quick else TURNS
    spent: dict[str, list[Cost]] = {"mine": [], "floor": []}
    with model_server() as url, bare_calls(url) as call, gateway(url, **PLAIN) as daemon:
        load = _turns(daemon, turns)

        def kept(name: str, cost: Cost) -> float:
            spent[name].append(cost)
            return cost.wall

        walls = paired(
            lambda: kept("mine", load()),
            lambda: kept("floor", call(SESSIONS * turns, SESSIONS)),
            quick=quick,
        )
        single = asyncio.run(_load(daemon.socket, "one", 1, 100 if quick else 1000))
        had, memory = len(spent["mine"]) * SESSIONS * turns + len(single), resident(daemon.pid)
    cpus = Pairs(*([cost.cpu for cost in spent[name][1:]] for name in ("mine", "floor")))
    cuts = quantiles(single, n=100)
    return [
        _rate(walls),
        row("CPU a turn (floor: a call)", cpus, milliseconds, "≤ 1.7"),
        Row("one turn alone, p50", milliseconds(cuts[49]), aim="≤ 5 ms"),
        Row("one turn alone, p99", milliseconds(cuts[98]), aim="≤ 15 ms"),
        Row(f"memory after {had:,} turns", f"{memory:.0f} MiB"),
    ]
