"""Tools of people's own, end to end: crashes, approval, `/stop`, and what is told of those that fail."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import ask
from tests.conftest import Daemons
from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import CallTools, OpenAIServer, Say
from tests.fakes.processes import below, gone, until

LOCAL = "agent:main:cli:local"
ROOT = Path(__file__).parents[2]

SOURCE = '''
import os, subprocess, time
from pathlib import Path

def note(word: str) -> str:
    """Note a word, and wait until the file `go` is there."""
    here = Path(__file__).parent
    with open(here / "noted", "a") as file:
        file.write(word + "\\n")
    subprocess.Popen(["sleep", "1000"])
    while not (here / "go").exists():
        time.sleep(0.01)
    return f"noted {word}"
'''


def with_functions(folder: Path, **more: Any) -> dict[str, Any]:
    """A configuration in which the agent may call `note`."""
    (folder / "mine.py").write_text(SOURCE)
    note = {"call": f"{folder}/mine.py:note", **more}
    return {"agents": {"main": {"tools": ["note"]}}, "tools": {"functions": {"note": note}}}


def noted(folder: Path) -> list[str]:
    return (folder / "noted").read_text().split() if (folder / "noted").exists() else []


def named(daemon: Daemon, role: str) -> list[dict[str, Any]]:
    return [event for event in daemon.events(LOCAL) if event["role"] == role]


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_side_effect_is_not_repeated_after_a_crash_unless_it_may_be(
    daemons: Daemons, openai: OpenAIServer, folder: Path, idempotent: bool
) -> None:
    config = with_functions(folder, idempotent=idempotent)
    openai.script(CallTools([("note", {"word": "once"})], then=Say("All is noted.")))
    daemon = await daemons(server=openai, config=config).start()
    client = await daemon.client()
    await client.say("Note it, please", "m1")
    await until(lambda: noted(folder) == ["once"])
    assert daemon.process is not None
    left = below(daemon.process.pid)
    await daemon.kill()
    await until(lambda: all(map(gone, left)))

    (folder / "go").touch()
    await daemon.start()
    client = await daemon.client()
    closed = await client.closed("m1")
    assert closed["content"] == "All is noted."
    assert noted(folder) == ["once"] * (1 + idempotent)
    [call], [result] = named(daemon, "tool_call"), named(daemon, "tool_result")
    assert call["call_id"] == result["call_id"]
    assert (result["ok"], result["result"].partition(" ")[0]) == (
        (True, "noted") if idempotent else (False, "The")
    )
    told = openai.requests[-1].body["messages"][-1]
    assert (told["role"], "noted once" in told["content"]) == ("tool", idempotent)


@pytest.mark.parametrize("allow", [True, False])
async def test_a_call_waits_for_the_person(
    daemons: Daemons, openai: OpenAIServer, folder: Path, allow: bool
) -> None:
    (folder / "go").touch()
    openai.script(CallTools([("note", {"word": "exact"})], then=Say("So be it.")))
    async with daemons(server=openai, config=with_functions(folder, ask=True)) as daemon:
        client = await daemon.client()
        await client.say("Note it, please", "m1")
        asked = await client.until("approval")
        assert (asked["name"], asked["args"]) == ("note", {"word": "exact"})
        assert noted(folder) == []
        await client.send("approve", call_id=asked["call_id"], allow=allow)
        assert (await client.closed("m1"))["content"] == "So be it."
        assert noted(folder) == (["exact"] if allow else [])
        [result] = named(daemon, "tool_result")
        assert result["ok"] is allow


async def test_stop_ends_three_tools_and_all_that_they_started(
    daemons: Daemons, openai: OpenAIServer, folder: Path
) -> None:
    calls: list[tuple[str, dict[str, Any] | str]] = [("note", {"word": word}) for word in ("a", "b", "c")]
    openai.script(CallTools(calls))
    async with daemons(server=openai, config=with_functions(folder)) as daemon:
        client = await daemon.client()
        await client.say("Note it, please", "m1")
        await until(lambda: sorted(noted(folder)) == ["a", "b", "c"])  # side by side: each waits for `go`
        assert daemon.process is not None
        running = below(daemon.process.pid)
        began = time.monotonic()
        await client.command("/stop")
        assert (await client.closed("m1"))["finish"] == "stopped"
        assert time.monotonic() - began < 1.0
        await until(lambda: all(map(gone, running)))
        results = named(daemon, "tool_result")
        assert len(results) == 3
        assert not any(result["ok"] for result in results)


async def test_what_fails_is_told_and_the_others_work(
    daemons: Daemons, openai: OpenAIServer, folder: Path
) -> None:
    (folder / "go").touch()
    config = with_functions(folder)
    config["tools"]["functions"]["lost"] = {"call": "nowhere.py:x"}
    config["tools"]["mcp"] = {"gone": {"url": "http://127.0.0.1:9/mcp"}}
    config["agents"]["main"]["tools"] += ["lost", "gone__*"]
    openai.script(CallTools([("note", {"word": "a"})], then=Say("Done.")))
    async with daemons(server=openai, config=config) as daemon:
        client = await daemon.client()
        assert (await client.ask("Note it"))["content"] == "Done."
        await daemon.logged("an MCP server failed", server="gone")
        await daemon.logged("a function cannot be a tool", function="lost")
        status, body = await daemon.get("/readyz")
        assert status == 200  # people are served: a tool less is no reason to send them away
        shown = await client.command("/status")
        assert "note: ready; lost: down; gone: down" in shown
        assert str(daemon.folder) not in shown  # why is for operators
        told = await asyncio.to_thread(ask.control, daemon.socket, "status")
        assert told["tools"]["gone"].startswith("ConnectError: ")
        assert told["tools"]["lost"] == f"{daemon.folder}/nowhere.py: there is no such file"
        assert "tools.mcp.gone" in str(body)
    offered = [tool["function"]["name"] for tool in openai.requests[0].body["tools"]]
    assert offered == ["note"]


async def test_an_mcp_server_serves_the_agents_that_may_use_it(
    daemons: Daemons, openai: OpenAIServer, folder: Path
) -> None:
    notes = folder / "notes"
    server = {"command": [sys.executable, "-m", "tests.fakes.mcp_program", str(notes)], "cwd": str(ROOT)}
    config = {
        "agents": {"main": {"tools": ["ours__n*"]}, "other": {"tools": []}},
        "routes": [{"provider": "cli", "peer": "other", "agent": "other"}],
        "tools": {"mcp": {"ours": server}},
    }
    openai.script(CallTools([("ours__note_it", {"word": "hello"})], then=Say("Noted.")))
    daemon = await daemons(server=openai, config=config).start()
    client = await daemon.client()
    await daemon.logged("MCP server ready", server="ours")
    assert (await client.ask("Note hello"))["content"] == "Noted."
    [request, _] = openai.requests
    offered = [tool["function"]["name"] for tool in request.body["tools"]]
    assert len(offered) == 2
    assert all(name.startswith("ours__note_it") for name in offered)
    assert "hello, too" in named(daemon, "tool_result")[0]["result"]
    assert "ours: 7 tools" in await client.command("/status")
    await (await daemon.client("other")).ask("Hello")
    assert not openai.requests[-1].body.get("tools")
    assert await daemon.stop() == 0
    pids = json.loads(notes.read_text().splitlines()[0])
    await until(lambda: gone(pids["started"]) and gone(pids["child"]))


async def test_an_early_fact_is_found_again(daemons: Daemons, openai: OpenAIServer) -> None:
    config = {"agents": {"main": {"history_turns": 2, "summaries": False}}}
    async with daemons(server=openai, config=config) as daemon:
        client = await daemon.client()
        await client.ask("My locker has the number 4711.")
        for number in range(4):
            await client.ask(f"Something else, {number}")
        openai.script(CallTools([("search_transcript", {"query": "locker number"})], then=Say("It is 4711.")))
        assert (await client.ask("What was the number?"))["content"] == "It is 4711."
    first, second = openai.requests[-2:]
    assert "4711" not in str(first.body["messages"])
    assert "4711" in second.body["messages"][-1]["content"]
