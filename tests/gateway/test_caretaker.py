"""What is done every few seconds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from gateway import counters
from gateway.caretaker import Caretaker
from gateway.router import Router
from session.protocols import TranscriptStore
from tests.fakes.gateway import Gateway


async def test_it_tells_probes_reports_and_watches_the_clock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.caretaker._SECONDS", 0.001)
    monkeypatch.setattr("gateway.caretaker._SWEEP_SECONDS", 0.0)
    told = asyncio.Event()
    rounds = 0

    def tell() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            told.set()

    before = sum(counters.LOOP_LAG_SECONDS.counts)
    async with Gateway(folder) as gateway:
        await gateway.lane()
        gateway.now = 3600.0
        gateway.store.fault = "No space left on device"
        gateway.store.repaired.append("a.jsonl")
        gateway.store.salvaged.append("b.jsonl")
        gateway.store.skipped.add(("c.jsonl", 7))
        with capture_logs() as logged:
            running = asyncio.create_task(Caretaker(gateway.store, gateway.router, tell).run())
            await asyncio.wait_for(told.wait(), 10)
            running.cancel()
            await asyncio.wait({running})
        assert gateway.store.fault is None  # there is space again
        assert not gateway.router.lanes  # nobody used the one that there was
    assert sum(counters.LOOP_LAG_SECONDS.counts) >= before + 2
    assert [entry["transcript"] for entry in logged] == ["a.jsonl", "b.jsonl", "c.jsonl"]  # each once


async def test_where_the_database_is_silent_the_watchdog_waits_for_it_once() -> None:
    asked: list[str] = []

    class Silent:
        fault: str | None = None

        async def probe(self) -> None:
            asked.append("store")
            self.fault = "PostgreSQL does not answer"

    class Routed:
        nodes: object | None = object()

        async def probe(self) -> None:
            asked.append("router")

    store, router = Silent(), Routed()
    caretaker = Caretaker(cast(TranscriptStore, store), cast(Router, router), lambda: None)
    await caretaker.probe()
    assert asked == ["store"]
    router.nodes = None  # a disk of our own: whether lanes open and close is looked at all the same
    await caretaker.probe()
    assert asked == ["store", "store", "router"]
