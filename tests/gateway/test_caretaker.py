"""What is done every few seconds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway import counters
from gateway.caretaker import Caretaker
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
