"""What the transcripts cost: durable appends beside the bare disk, and what must not grow with the data."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time

import uvloop

from benchmarks.lag import Worst, probe
from benchmarks.pairs import FULL, QUICK, Pairs
from benchmarks.table import Row, microseconds, milliseconds, row
from gateway import collector
from session import ids
from session.conversation import tail
from session.events import Assistant, System, User, encode
from session.ids import SessionId
from session.store import Store

THREADS = 16
WRITERS = 200
ROUNDS = 9
HISTORY_TURNS = 20
STARTING, LISTING = "CPU of a start, and what is open", "CPU of a listing, for each session that it lists"
MANY, QUICK_MANY = 100_000, 5_000


def session(number: int) -> SessionId:
    return SessionId(f"agent:main:cli:s{number}")


def message(number: int) -> User:
    return User(
        content="What time is it in Ulaanbaatar? " * 4, id=f"m{number}", ts="2026-02-25T10:05:00.000Z"
    )


# -- durable appends -----------------------------------------------------------------------------

Write = Callable[[int, int], Awaitable[object]]


async def measured(write: Write, writers: int, each: int) -> tuple[float, list[float]]:
    """Let the writers write one after the other's answer; return writes a second, and each one's time."""
    times: list[float] = []

    async def writer(number: int) -> None:
        for turn in range(each):
            begin = perf_counter()
            await write(number, turn)
            times.append(perf_counter() - begin)

    begin = perf_counter()
    await asyncio.gather(*map(writer, range(writers)))
    return writers * each / (perf_counter() - begin), times


async def floor(folder: Path, writers: int, each: int) -> tuple[float, list[float]]:
    """The same lines to plain files: `os.write` and `fdatasync` in as many threads, and nothing else."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [os.open(folder / f"plain{number}", flags, 0o600) for number in range(writers)]
    loop = asyncio.get_running_loop()

    def write(fd: int, line: bytes) -> None:
        os.write(fd, line)
        os.fdatasync(fd)

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            return await measured(
                lambda number, turn: loop.run_in_executor(pool, write, files[number], encode(message(turn))),
                writers,
                each,
            )
        finally:
            for fd in files:
                os.close(fd)


async def _appends(folder: Path, quick: bool) -> list[Row]:
    """One session, then all of them at once, beside the floor."""
    rows: list[Row] = []
    collector.keep_off()  # as in the gateway
    store = Store(folder / "appends", threads=THREADS)
    store.start()
    for number in range(WRITERS):  # sessions that exist, with something open: the daily case
        await store.append(session(number), [message(-1)])
    for writers, each in ((1, 100 if quick else 400), (WRITERS, 3 if quick else 20)):
        rates: dict[str, list[float]] = {"store": [], "floor": []}
        times: dict[str, list[float]] = {"store": [], "floor": []}
        looks: dict[str, list[Worst]] = {"store": [], "floor": []}
        for number in range(QUICK if quick else FULL):
            for name in ("store", "floor") if number % 2 else ("floor", "store"):
                probing = asyncio.create_task(probe(looks[name].append))
                rate, took = (
                    await floor(folder, writers, each)
                    if name == "floor"
                    else await measured(
                        lambda number, turn: store.append(session(number), [message(turn)]), writers, each
                    )
                )
                probing.cancel()
                rates[name].append(rate)
                times[name] += took
        who = f"{writers} sessions" if writers > 1 else "1 session"
        pairs = Pairs(rates["store"], rates["floor"])
        aim = "≥ 0.60" if writers > 1 else ""
        rows.append(row(f"{who}: appends a second", pairs, lambda rate: f"{rate:,.0f}", aim))
        rows.append(_times(f"{who}: median", *(median(times[name]) for name in times)))
        rows.append(_times(f"{who}: 99 %", *(quantiles(times[name], n=100)[98] for name in times)))
        stretches = (max(look.cpu for look in looks[name]) for name in looks)
        rows.append(_times(f"{who}: the loop's longest stretch of CPU", *stretches, aim="≤ 10 ms"))
    await store.close()
    return [*rows, await _new_sessions(folder, quick)]


def _times(what: str, measured: float, floor: float, aim: str = "") -> Row:
    return Row(what, milliseconds(measured), milliseconds(floor), measured / floor, aim)


async def _new_sessions(folder: Path, quick: bool) -> Row:
    """The first message of a session makes its file and hints at it: more than one wait for the disk."""
    store = Store(folder / "new", threads=THREADS)
    store.start()
    count = WRITERS if quick else 5 * WRITERS
    begin = perf_counter()
    await asyncio.gather(*(store.append(session(number), [message(0)]) for number in range(count)))
    rate = count / (perf_counter() - begin)
    await store.close()
    return Row(f"{count} new sessions at once: a second", f"{rate:,.0f}")


# -- what must not grow --------------------------------------------------------------------------


def long_transcript(path: Path, events: int, of: SessionId) -> None:
    header = encode(System(name="session", content=of, format=1, ts="2026-02-25T10:05:00.000Z"))
    with path.open("wb") as file:
        file.write(header)
        for turn in range((events - 1) // 3):
            asked = message(turn)
            started = System(name="started", turn=f"t{turn}", messages=(f"m{turn}",), attempt=1)
            answer = Assistant(
                content="It is late. " * 20, turn=f"t{turn}", answers=(f"m{turn}",), finish="stop"
            )
            file.write(encode(asked) + encode(started) + encode(answer))


async def _tails(folder: Path, quick: bool) -> list[Row]:
    """The end of small and large transcripts, read in turns; each beside the smallest that has as much."""
    sizes = (100, 10_000, 100_000 if quick else 1_000_000)
    (folder / "tails" / "sessions").mkdir(parents=True)
    for number, size in enumerate(sizes):
        of = session(number)
        long_transcript(folder / "tails" / "sessions" / ids.file_name(of), size, of)
    reads: dict[str, Callable[[Store, SessionId], Awaitable[object]]] = {
        "the last 20 events": lambda store, of: store.before(of, None, 20),
        "all that a lane needs": lambda store, of: store.recent(of, tail(HISTORY_TURNS)),
    }
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        store = Store(folder / "tails")
        store.start()
        await store.listing()  # starts the threads
        for what, read in reads.items():
            for number, size in enumerate(sizes):
                begin = perf_counter()
                await read(store, session(number))
                times.setdefault((what, size), []).append(perf_counter() - begin)
        await store.close()
    smallest = {"the last 20 events": sizes[0], "all that a lane needs": sizes[1]}
    return [
        _times(f"{what}, of {size:,}", median(took), median(times[what, smallest[what]]), "≤ 1.10")
        for (what, size), took in sorted(times.items(), reverse=True)
        if size > smallest[what]
    ]


async def _starts(folder: Path, quick: bool) -> list[Row]:
    """A start among few and many sessions, 20 of them with something open; and the listing of them all."""
    counts = (100, QUICK_MANY if quick else MANY)
    for count in counts:
        store = Store(folder / f"starts{count}", threads=THREADS)
        store.start()
        for number in range(count):
            path = folder / f"starts{count}" / "sessions" / ids.file_name(session(number))
            path.write_bytes(encode(System(name="session", content=session(number), format=1)))
        await asyncio.gather(*(store.append(session(number), [message(0)]) for number in range(20)))
        await store.close()
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(QUICK if quick else ROUNDS):
        for count in counts:
            begin = process_time()
            store = Store(folder / f"starts{count}", threads=THREADS)
            store.start()
            found = store.maybe_open()
            times.setdefault((STARTING, count), []).append(process_time() - begin)
            if len(found) != 20:
                raise SystemExit(f"{len(found)} sessions may be open, not 20")
            await store.before(session(0), None, 1)  # starts a thread
            begin = process_time()
            await store.listing()
            times.setdefault((LISTING, count), []).append((process_time() - begin) / count)
            await store.close()
    few, many = counts
    return [
        row(f"{what}, of {many:,} (floor: {few})", Pairs(times[what, many], times[what, few]), unit, "≤ 1.20")
        for what, unit in ((STARTING, milliseconds), (LISTING, microseconds))
    ]


def _within_a_folder(measure: Callable[[Path, bool], Awaitable[list[Row]]], quick: bool) -> list[Row]:
    """Run it on a directory of its own, in `$TMPDIR`, which is removed."""
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as folder:
        found: list[Row] = uvloop.run(measure(Path(folder), quick))
    return found


def appends(*, quick: bool) -> list[Row]:
    """Durable appends of one session, and of 200 at once."""
    return _within_a_folder(_appends, quick)


def tails(*, quick: bool) -> list[Row]:
    """The end of transcripts of many lengths."""
    return _within_a_folder(_tails, quick)


def starts(*, quick: bool) -> list[Row]:
    """Starting on few sessions and on many, and listing them."""
    return _within_a_folder(_starts, quick)
