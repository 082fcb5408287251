"""500 replies at once, 40 tokens a second each, from the model's socket to the clients'; and a bare relay."""

from __future__ import annotations

import asyncio
import re
import time
from statistics import median, quantiles
from typing import NamedTuple

import uvloop

from benchmarks.frames import HELLO, Client, masked
from benchmarks.lag import Worst, lag
from benchmarks.pairs import Pairs
from benchmarks.process import cpu, gateway, many_files, running, told
from benchmarks.table import Row, microseconds, milliseconds, row

SESSIONS, RATE = 500, 40
SECONDS, QUICK_SECONDS = 12, 4  # of one reply
_BEGINNING = 2.0  # seconds within which the replies begin
_PATIENCE = 60.0
_TOKEN = re.compile(rb" (\d{6,})")


class Stream(NamedTuple):
    """Of one run: each token's delay, how many frames brought them, and the server's CPU seconds a token."""

    delays: list[float]
    frames: int
    cpu: float


class _Crowd:
    """All clients of one run."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid = pid
        self._port = port
        self._delays: list[float] = []
        self._frames = 0
        self._left = SESSIONS
        self._over = asyncio.Event()

    def _hear(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"delta"'):
            now = time.monotonic_ns()
            self._frames += 1
            self._delays += [(now - int(token)) / 1e9 for token in _TOKEN.findall(payload)]
        elif payload.startswith(b'{"type":"done"'):
            self._left -= 1
            if not self._left:
                self._over.set()
        elif payload.startswith(b'{"type":"error"'):
            raise RuntimeError(f"the gateway said {payload!r}")

    async def run(self) -> Stream:
        clients = [await Client.open(self._port) for _ in range(SESSIONS)]
        for begin in range(0, SESSIONS, 50):
            await asyncio.gather(*(client.ask(HELLO) for client in clients[begin : begin + 50]))
        used = cpu(self._pid)
        for client in clients:
            client.hear = self._hear
            client.transport.write(masked({"type": "message", "id": "m1", "text": "go"}))
            await asyncio.sleep(_BEGINNING / SESSIONS)
        async with asyncio.timeout(_PATIENCE):
            await self._over.wait()
        spent = cpu(self._pid) - used
        for client in clients:
            client.transport.abort()
        return Stream(self._delays, self._frames, spent / len(self._delays))


async def _stream(pid: int, port: int) -> Stream:
    return await _Crowd(pid, port).run()


def run(*, quick: bool) -> list[Row]:
    """Measure, in turns: gateway, relay, relay, gateway."""
    many_files(4 * SESSIONS)
    tokens = RATE * (QUICK_SECONDS if quick else SECONDS)
    settings = {"LUNAR_QUEUE__RUNNING": str(SESSIONS), "LUNAR_AGENTS__MAIN__SUMMARIES": "false"}
    mine: list[Stream] = []
    floor: list[Stream] = []
    with (
        lag() as probe,
        running(["-m", "benchmarks.steady_model", str(RATE), str(tokens)]) as model,
        running(["-m", "benchmarks.relay", url := told(model)]) as relay,
        gateway(url, program="benchmarks.lag", **settings, **probe.environment) as daemon,
    ):
        port = int(told(relay))
        for number in range(1 if quick else 4):
            both = ((daemon.pid, daemon.port, mine), (relay.pid, port, floor))
            for pid, at, into in both[:: -1 if number % 2 else 1]:
                if into is mine:
                    probe.reset()
                into.append(uvloop.run(_stream(pid, at)))
        worst = probe.worst
    return _rows(mine, floor, worst)


def _rows(mine: list[Stream], floor: list[Stream], worst: Worst) -> list[Row]:
    cuts = [[quantiles(stream.delays, n=100) for stream in streams] for streams in (mine, floor)]
    p50, p99 = (Pairs(*([cut[place] for cut in both] for both in cuts)) for place in (49, 98))
    longest = Pairs(*([max(stream.delays) for stream in streams] for streams in (mine, floor)))
    cpus = Pairs(*([stream.cpu for stream in streams] for streams in (mine, floor)))
    tokens = median(len(stream.delays) / stream.frames for stream in mine)
    return [
        row("delay of a token, p50", p50, milliseconds),
        row("delay of a token, p99", p99, milliseconds, "≤ 100 ms"),
        row("delay of a token, longest", longest, milliseconds),
        row("CPU a token", cpus, microseconds, "≤ 40 µs"),
        Row("tokens in a frame", f"{tokens:.2f}"),
        Row("the loop's longest stretch of CPU", milliseconds(worst.cpu), aim="≤ 10 ms"),
        Row("the loop's probe came late by", milliseconds(worst.late)),
    ]
