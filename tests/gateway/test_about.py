"""What a person and an operator are told."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from channels.base import Answer
from gateway.config import Budget
from gateway.turn import Ask, ContextUse, TurnEvent, TurnUpdate
from session.events import Assistant, System, Usage
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Watcher, cli
from tests.gateway.verbs.lunar import path


async def costly(ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
    yield [Assistant(content="x" * 400, finish="stop", usage=Usage(1000, 200, 0.012))]


class _Tools:
    def __init__(self) -> None:
        self.states = {"files": "ready, 3 tools", "mail": "down: no route to 10.0.0.1"}
        self.public = {"files": "ready, 3 tools", "mail": "down"}


async def status(gateway: Gateway, id: str = "c1") -> dict[str, str]:
    seat = await gateway.router.session(cli())
    answer = await seat.submit(id, "/status")
    seat.close()
    assert isinstance(answer, Answer)
    lines = answer.text.splitlines()
    assert len(lines) <= 8
    return dict(line.split(": ", 1) for line in lines)


async def test_a_new_session(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        rows = await status(gateway)
        assert rows.pop("Up for")
        assert rows == {
            "Agent": "main, in session agent:main:cli:local",
            "Model": "scripted",
            "Context": "0 earlier messages, about 0 of 8,000 tokens (0%)",
            "Queue": "idle",
            "Today": "0 tokens",
            "Channels": "cli: ready",
        }


async def test_what_was_used_today_and_what_may_be(folder: Path) -> None:
    budget = Budget.model_validate({"peer": {"tokens": 5000, "money": 1}})
    async with Gateway(folder, ScriptedRunner(costly), budget=budget) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await watcher.done()
        await lane.record([System(name="summary", content="x", usage=Usage(300, 0))])
        rows = await status(gateway)
        assert rows["Today"] == "1,500 of 5,000 tokens, 0.0120 of 1.00"
        assert rows["Context"].startswith("2 earlier messages, about 1")
        lane.context = ContextUse(4000, 10_000)  # as the model's server said
        assert (await status(gateway, "c3"))[
            "Context"
        ] == "2 earlier messages, about 4,000 of 10,000 tokens (40%)"
    async with Gateway(folder) as gateway:  # read back, with no budget and nothing in memory
        assert (await status(gateway, "c2"))["Today"] == "1,500 tokens, 0.0120"


async def test_tools_and_trouble_have_their_line(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        gateway.controls.about.tools = _Tools()
        gateway.channel_faults.faults["telegram"] = "Unauthorized: bot12345:secret"
        rows = await status(gateway)
        assert rows["Tools"] == "files: ready, 3 tools; mail: down"
        assert rows["Trouble"] == "channel telegram"  # a person is told what, an operator why
        assert len(rows) == 8


async def test_turns_that_wait_for_their_slot_are_counted_apart(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate), running=1) as gateway:
        for name in ("one", "two"):
            await (await gateway.lane(name)).submit("m1", "Hello")
        await gate.entered.wait()
        data = await gateway.controls.control("status", {})
        assert (data["turns_running"], data["turns_waiting"]) == (1, 1)
        gate.open.set()
        await gateway.quiet()


async def test_sessions_of_today_and_the_disk(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        for name in ("one", "two"):
            await (await gateway.lane(name)).submit("m1", "Hello")
        await gateway.quiet()
        old = time.time() - 86_400
        os.utime(path(folder, "agent:main:cli:one"), (old, old))
        data = await gateway.controls.control("status", {})
        assert data["sessions_today"] == 1
        assert data["channels"] == {"cli": "ready"}
        assert 0 < data["disk"]["free_bytes"] <= data["disk"]["total_bytes"]
