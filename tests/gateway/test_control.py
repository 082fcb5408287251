"""The verbs of operators."""

import asyncio
from pathlib import Path

import pytest

from gateway.about import duration
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner


async def test_status_counts_what_goes_on(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        lane = await gateway.lane()
        await lane.submit("m1", "Hello")
        await gate.entered.wait()
        await lane.submit("m2", "Hello")
        status = await gateway.controls.control("status", {})
        assert status["ready"]
        assert (status["sessions_in_memory"], status["turns_running"], status["messages_waiting"]) == (
            1,
            1,
            1,
        )
        assert status["agents"] == {"main": "scripted"}
        assert status["memory_bytes"] > 1 << 20
        gateway.health.draining = True
        assert (await gateway.controls.control("status", {}))["trouble"] == {"gateway": "shutting down"}
        gate.open.set()


async def test_delete_removes_a_session_for_good(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client("work")
        await client.ask("Hello")
        delete = {"session": "agent:main:cli:work"}
        assert await gateway.controls.control("delete", delete) == {"deleted": True}
        assert not (folder / "sessions" / "agent-main-cli-work.jsonl").exists()
        assert await gateway.controls.control("delete", delete) == {"deleted": False}
        assert (await client.ask("Hello again"))["content"] == "echo: Hello again"


async def test_archive_compresses_a_session_that_nobody_is_in(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client("work")
        await client.ask("Hello")
        archive = {"session": "agent:main:cli:work"}
        held = {"archived": False, "why": "somebody is in it, or was a minute ago"}
        assert await gateway.controls.control("archive", archive) == held
        await client.close()
        lane = await gateway.lane("work")
        while lane.held:  # noqa: ASYNC110 - no event says that the channel has let go
            await asyncio.sleep(0.001)
        gateway.now = 61.0 + lane.used
        await gateway.router.sweep()
        assert await gateway.controls.control("archive", archive) == {"archived": True, "why": None}
        assert (folder / "archive" / "agent-main-cli-work.jsonl.gz").exists()


@pytest.mark.parametrize(
    ("verb", "args", "code", "words"),
    [
        ("archive", {}, "bad_frame", "archive needs args.session"),
        ("archive", {"session": "work"}, "not_found", "agent:<agentId>"),
        ("reboot", {}, "not_found", "The verbs are: status"),
        ("delete", {}, "bad_frame", "args.session"),
        ("delete", {"session": 1}, "bad_frame", "args.session"),
        ("delete", {"session": "work"}, "not_found", "agent:<agentId>"),
        ("delete", {"session": "../../lock"}, "not_found", "agent:<agentId>"),
        ("delete", {"session": "agent:nobody:cli:x"}, "not_found", "no agent"),
        ("delete", {"session": "agent:main:cli:\ud800"}, None, ""),
    ],
)
async def test_what_is_refused(
    folder: Path, verb: str, args: dict[str, object], code: str | None, words: str
) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        await client.send("control", id="c1", verb=verb, args=args)
        if code is None:
            assert (await client.until("result"))["data"] == {"deleted": False}
            return
        error = await client.until("error")
        assert (error["code"], error["id"]) == (code, "c1")
        assert words in error["message"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (3600, "1 h"), (3725, "1 h 2 min"), (90_061, "1 d 1 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
