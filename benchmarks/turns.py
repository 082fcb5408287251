"""Turns per second and CPU per turn over the Unix socket, beside a bare loop of the same openai calls."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

import msgspec

from benchmarks.process import cpu, gateway, model_server, resident
from benchmarks.table import Row

SESSIONS, TURNS = 50, 10


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


def floor(url: str, calls: int, parallel: int) -> tuple[float, float]:
    """Calls per second and CPU seconds per call of the official client alone, in a process of its own."""
    out = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.turns", "floor", url, str(calls), str(parallel)], text=True
    )
    rate, per_call = out.split()
    return float(rate), float(per_call)


async def _bare_loop(url: str, calls: int, parallel: int) -> None:
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

    async def ask() -> None:
        stream = await client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        async for _ in stream:
            pass

    async def asker(count: int) -> None:
        for _ in range(count):
            await ask()

    await asyncio.gather(*(ask() for _ in range(parallel)))  # imports and connections
    used, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.gather(*(asker(calls // parallel) for _ in range(parallel)))
    spent, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(calls / spent, cpu_seconds / calls)


def run(*, quick: bool) -> list[Row]:
    """Measure; the floor before and after, so that a drift shows."""
    turns = TURNS if quick else TURNS * 4
    total = SESSIONS * turns
    with model_server() as url:
        before = floor(url, total, SESSIONS)
        # The model echoes: of a whole conversation, thousands of chunks that no real summary has.
        with gateway(url, None, LUNAR_AGENTS__MAIN__SUMMARIES="false") as daemon:
            asyncio.run(_load(daemon.socket, "warm", SESSIONS, 2))
            used, began = cpu(daemon.pid), time.perf_counter()
            asyncio.run(_load(daemon.socket, "s", SESSIONS, turns))
            rate = total / (time.perf_counter() - began)
            per_turn = (cpu(daemon.pid) - used) / total
            single = asyncio.run(_load(daemon.socket, "one", 1, 100))
            memory = resident(daemon.pid)
        after = floor(url, total, SESSIONS)
    floor_rate, floor_cpu = (before[0] + after[0]) / 2, (before[1] + after[1]) / 2
    p99 = quantiles(single, n=100)[98]
    return [
        Row("turns a second, 50 sessions", f"{rate:.0f}", f"{floor_rate:.0f}", rate / floor_rate),
        Row(
            "CPU a turn (floor: a call)",
            f"{per_turn * 1e3:.2f} ms",
            f"{floor_cpu * 1e3:.2f} ms",
            per_turn / floor_cpu,
        ),
        Row("one turn alone, p50", f"{median(single) * 1e3:.2f} ms"),
        Row("one turn alone, p99", f"{p99 * 1e3:.2f} ms"),
        Row(f"memory after {total} turns", f"{memory:.0f} MiB"),
    ]


if __name__ == "__main__":
    asyncio.run(_bare_loop(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
