"""One piece of work on every session: here where they are few, on all processors where they are many."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from gateway.verbs.sessions.progress import bar
from gateway.verbs.sessions.source import Source
from session.ids import SessionId
from session.listing import Entry

T = TypeVar("T")
Work = Callable[[Source, list[SessionId]], T]

_SLICE_SESSIONS = 400
_SLICE_BYTES = 8 << 20
_FEW_SLICES = 4  # below that, starting processes takes longer than it saves


def over(source: Source, entries: list[Entry], work: Work[T], label: str) -> Iterator[T]:
    """The results of `work` for slices of the sessions, in their order, as they come.

    `work` must be picklable, so a module's own function or a `partial` of one. Raises what it raises.
    """
    slices = list(_slices(entries))
    if len(slices) <= _FEW_SLICES:
        yield from (work(source, part) for part in slices)
        return
    # fork: a new interpreter for each process would take longer to start than most searches take. No
    # thread is running yet; the bar starts one.
    context = multiprocessing.get_context("fork")
    workers = len(os.sched_getaffinity(0))
    pool = ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=_DEAF)
    try:
        results = [pool.submit(work, source, part) for part in slices]
        yield from _results(results, slices, label)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_DEAF = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that prints


def _results(results: list[Future[T]], slices: list[list[SessionId]], label: str) -> Iterator[T]:
    with bar(label, sum(map(len, slices))) as advance:
        for result, part in zip(results, slices, strict=True):
            yield result.result()
            advance(len(part))


def _slices(entries: Iterable[Entry]) -> Iterator[list[SessionId]]:
    part: list[SessionId] = []
    size = 0
    for entry in entries:
        part.append(entry.session)
        size += entry.size
        if len(part) == _SLICE_SESSIONS or size >= _SLICE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
