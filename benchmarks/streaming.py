"""500 replies at once, 40 tokens a second each, from the model's socket to the clients'; and a bare relay.

What counts is the time in which all of them stream: what it costs to begin a turn is in `turns`. Only the
loop's longest stretches are told of all phases.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from statistics import median, quantiles
from typing import NamedTuple

import uvloop

from benchmarks.frames import HELLO, Client, masked
from benchmarks.lag import Lag, Worst, lag
from benchmarks.pairs import Pairs
from benchmarks.process import cpu, gateway, many_files, running, told
from benchmarks.table import Row, microseconds, milliseconds, row

SESSIONS, QUICK_SESSIONS, RATE = 500, 200, 40
SECONDS, QUICK_SECONDS = 14, 5  # of one reply
_BEGINNING = 100  # replies a second that begin
_PATIENCE = 60.0
_GOING = 0.5  # seconds in which the server notices that all are gone
_PHASES = ("while they come, 50 at once", "while they begin", "while all stream", "while they end and go")
_TOKEN = re.compile(rb" (\d{6,})")


class Stream(NamedTuple):
    """While all stream: the delay of each token, how many frames brought them, the server's CPU for one."""

    delays: list[float]
    frames: int
    cpu: float
    worst: list[Worst]  # of each of the _PHASES; none without a probe


class _Crowd:
    """All clients of one run."""

    def __init__(self, pid: int, port: int, sessions: int, probe: Lag | None) -> None:
        self._pid = pid
        self._port = port
        self._sessions = sessions
        self._probe = probe
        self._worst: list[Worst] = []
        self._delays: list[float] = []
        self._frames = 0
        self._silent = self._left = sessions
        self._used = 0.0  # the server's CPU seconds, when the last reply had begun
        self._found: Stream | None = None
        self._over = asyncio.Event()

    def _phase_ends(self) -> None:
        if self._probe is not None:
            self._worst.append(self._probe.worst)
            self._probe.reset()

    def _begin(self, client: Client, payload: bytes) -> None:
        self._hear(payload)
        if payload.startswith(b'{"type":"delta"'):
            client.hear = self._hear
            self._silent -= 1
            if not self._silent:
                self._phase_ends()
                self._delays, self._frames, self._used = [], 0, cpu(self._pid)

    def _hear(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"delta"'):
            now = time.monotonic_ns()
            self._frames += 1
            self._delays += [(now - int(token)) / 1e9 for token in _TOKEN.findall(payload)]
        elif payload.startswith(b'{"type":"done"'):
            if self._found is None and not self._silent and self._delays:
                spent = cpu(self._pid) - self._used
                self._phase_ends()
                self._found = Stream(self._delays, self._frames, spent / len(self._delays), self._worst)
                self._delays = []  # from here on they are nobody's
            self._left -= 1
            if not self._left:
                self._over.set()
        elif payload.startswith(b'{"type":"error"'):
            raise RuntimeError(f"the gateway said {payload!r}")

    async def run(self) -> Stream:
        if self._probe is not None:
            self._probe.reset()
        clients = [await Client.open(self._port) for _ in range(self._sessions)]
        for begin in range(0, self._sessions, 50):
            await asyncio.gather(*(client.ask(HELLO) for client in clients[begin : begin + 50]))
        self._phase_ends()
        for client in clients:
            client.hear = partial(self._begin, client)
            client.transport.write(masked({"type": "message", "id": "m1", "text": "go"}))
            await asyncio.sleep(1 / _BEGINNING)
        async with asyncio.timeout(_PATIENCE):
            await self._over.wait()
        for client in clients:
            client.transport.abort()
        await asyncio.sleep(_GOING)
        self._phase_ends()
        if self._found is None:
            raise RuntimeError("the first reply was over before the last one had begun: is the machine busy?")
        return self._found


async def _stream(pid: int, port: int, sessions: int, probe: Lag | None) -> Stream:
    return await _Crowd(pid, port, sessions, probe).run()


def run(*, quick: bool) -> list[Row]:
    """Measure, in turns: gateway, relay, relay, gateway."""
    sessions, seconds = (QUICK_SESSIONS, QUICK_SECONDS) if quick else (SESSIONS, SECONDS)
    many_files(4 * sessions)
    settings = {"LUNAR_QUEUE__RUNNING": str(sessions), "LUNAR_AGENTS__MAIN__SUMMARIES": "false"}
    mine: list[Stream] = []
    floor: list[Stream] = []
    with (
        lag() as probe,
        running(["-m", "benchmarks.steady_model", str(RATE), str(RATE * seconds)]) as model,
        running(["-m", "benchmarks.relay", url := told(model)]) as relay,
        gateway(url, program="benchmarks.lag", **settings, **probe.environment) as daemon,
    ):
        port = int(told(relay))
        for number in range(1 if quick else 4):
            both = ((daemon.pid, daemon.port, mine, probe), (relay.pid, port, floor, None))
            for pid, at, into, probed in both[:: -1 if number % 2 else 1]:
                into.append(uvloop.run(_stream(pid, at, sessions, probed)))
    return _rows(mine, floor)


def _rows(mine: list[Stream], floor: list[Stream]) -> list[Row]:
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
        *_stretches(mine),
        Row("the loop's probe came late by", milliseconds(max(w.late for s in mine for w in s.worst))),
    ]


def _stretches(mine: list[Stream]) -> list[Row]:
    """The longest of each phase, over all runs."""
    phases = zip(_PHASES, zip(*(stream.worst for stream in mine), strict=True), strict=True)
    return [
        Row(
            f"the loop's longest stretch of CPU {phase}",
            milliseconds(max(w.cpu for w in worst)),
            aim="≤ 10 ms",
        )
        for phase, worst in phases
    ]
