"""The same gateway on few and on many sessions: nothing that people notice may grow with them."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec

from benchmarks.pairs import Pairs, paired
from benchmarks.process import Gateway, cpu, gateway, proportional
from benchmarks.startup import cpu_of
from benchmarks.table import Row, microseconds, milliseconds, row
from session import ids
from session.events import System, encode
from session.hints import OpenLog
from session.ids import SessionId

FEW, MANY, QUICK_MANY = 100, 100_000, 10_000
ASKED = 200
APPENDS = "/queue each"
_TWO_DAYS = 2 * 24 * 3600.0


def _fill(directory: Path, sessions: int) -> None:
    """So many sessions, to which nobody wrote since the day before yesterday: what was used today is few."""
    (directory / "sessions").mkdir(parents=True)
    hints = OpenLog(
        directory
    )  # as a gateway leaves it in which nothing is open: without it a start looks at all
    hints.load()
    hints.close()
    written = time.time() - _TWO_DAYS
    for number in range(sessions):
        session = SessionId(f"agent:main:cli:s{number}")
        header = encode(System(name="session", content=session, format=1))
        path = directory / "sessions" / ids.file_name(session)
        path.write_bytes(header)
        os.utime(path, (written, written))


async def _ask(path: Path, text: str, times: int, prefix: str) -> None:
    """Say the same thing so many times in one session; its answer is one frame."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    writer.write(msgspec.json.encode({"type": "hello", "protocol": 1, "session": "s7"}) + b"\n")
    for number in range(times):
        message = {"type": "message", "id": f"{prefix}{number}", "text": text}
        writer.write(msgspec.json.encode(message) + b"\n")
        while not (line := await reader.readline()).startswith(b'{"type":"notice"'):
            if not line or line.startswith(b'{"type":"error"'):
                raise RuntimeError(f"the gateway said {line!r}")
    writer.close()
    await writer.wait_closed()


def _asking(daemon: Gateway, text: str) -> Callable[[], float]:
    """A function that says something many times; CPU seconds of the gateway for one."""
    rounds = count()

    def measure() -> float:
        before = cpu(daemon.pid)
        asyncio.run(_ask(daemon.socket, text, ASKED, f"{text[1]}{next(rounds)}-"))
        return (cpu(daemon.pid) - before) / ASKED

    return measure


def _restart(directory: Path) -> float:
    """CPU seconds until it is ready on what is there."""
    with gateway(None, directory) as daemon:
        return cpu(daemon.pid)


def _look(directory: Path) -> float:
    """CPU seconds of `lunar status`."""
    return cpu_of([sys.executable, "-m", "gateway", "status"], LUNAR_DATA_DIR=str(directory))


def run(*, quick: bool) -> list[Row]:
    """Measure, in turns: on many, and on few."""
    sessions = QUICK_MANY if quick else MANY
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as temporary:
        many, few = Path(temporary) / "many", Path(temporary) / "few"
        _fill(many, sessions)
        _fill(few, FEW)
        restarts = paired(lambda: _restart(many), lambda: _restart(few), quick=quick)
        with gateway(None, many) as crowded, gateway(None, few) as quiet:
            rows = [
                _row(said, sessions, paired(_asking(crowded, said), _asking(quiet, said), quick=quick))
                for said in (APPENDS, "/status")
            ]
            looks = paired(lambda: _look(many), lambda: _look(few), quick=quick)
            memory = Pairs([proportional(crowded.pid)], [proportional(quiet.pid)])
    return [
        *rows,
        row(f"`lunar status` among {sessions:,}", looks, milliseconds, "≤ 1.20"),
        row(f"a restart among {sessions:,}", restarts, milliseconds, "≤ 1.20"),
        row(f"memory among {sessions:,}", memory, lambda size: f"{size:.0f} MiB", "≤ 1.20"),
    ]


def _row(said: str, sessions: int, pairs: Pairs) -> Row:
    what = f"`{said}`, which appends" if said == APPENDS else f"`{said}`"
    return row(f"{what}, among {sessions:,} (floor: {FEW})", pairs, microseconds, "≤ 1.20")
