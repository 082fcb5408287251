"""MCP servers, real ones: listed, called, cancelled, killed and started again, over stdio and HTTP."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.agent import mcp_server
from gateway.agent.environment import scrubbed
from gateway.agent.mcp_server import McpServer, exposed
from gateway.agent.tools import MAX_OUTPUT, Scope, Toolbox
from gateway.config import McpServer as Settings
from session.ids import SessionId
from tests.fakes import mcp_servers
from tests.fakes.processes import below, gone, until

ROOT = Path(__file__).parents[3]
SESSION = SessionId("agent:main:cli:local")
SCOPE = Scope(SESSION, "t1", "c1")


@pytest.fixture
def cache(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.cache.mkdir("mcp-servers")


class Running:
    """A server that is kept running, and what it tells of itself."""

    def __init__(self, name: str, faults: dict[str, str], **settings: Any) -> None:
        self.faults = faults
        self.sleeps: list[float] = []
        environment = scrubbed(os.environ)
        self.server = McpServer(name, Settings(**settings), environment, faults, self._sleep)
        self.box = Toolbox((), [self.server])

    async def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.sleep(0.01)

    async def up(self) -> None:
        await until(lambda: self.server.state.endswith("tools"))

    async def call(self, name: str, args: dict[str, Any] | None = None) -> Any:
        return await self.box.call(f"{self.server.name}__{name}", args or {}, SCOPE)

    @property
    def names(self) -> set[str]:
        return {schema["function"]["name"] for schema in self.box.schemas()}


Start = Callable[..., Running]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[Running] = []

    def begin(name: str, **settings: Any) -> Running:
        one = Running(name, {}, **settings)
        running.append(one)
        one.server.start()
        return one

    yield begin
    await asyncio.gather(*(one.server.stop() for one in running))
    assert not [command for command in below(os.getpid()).values() if "leash" in command]


class Ours:
    """Settings of `tests.fakes.mcp_program`, and what it noted."""

    def __init__(self, file: Path) -> None:
        self.command = (sys.executable, "-m", "tests.fakes.mcp_program", str(file))
        self.file = file

    @property
    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def pids(self) -> list[int]:
        """Of the last life: the server's and its child's."""
        last = [note for note in self.notes if "started" in note][-1]
        return [last["started"], last["child"]]


@pytest.fixture
def ours(tmp_path: Path) -> Ours:
    return Ours(tmp_path / "notes")


# -- of others ---------------------------------------------------------------------------------------


async def test_the_time_server_over_stdio(start: Start, cache: Path) -> None:
    command, env = mcp_servers.time_server(cache)
    clock = start("clock", command=command, env=env)
    await clock.up()
    assert clock.names == {"clock__get_current_time", "clock__convert_time"}
    outcome = await clock.call("get_current_time", {"timezone": "Asia/Tokyo"})
    assert outcome.ok
    assert "+09:00" in json.loads(outcome.text)["datetime"]
    outcome = await clock.call("get_current_time", {"timezone": "Nowhere/Land"})
    assert not outcome.ok
    assert outcome.text.startswith("clock__get_current_time failed: ")
    victim = [
        pid
        for pid, command in below(os.getpid()).items()
        if " leash" not in command and "mcp_server_time" in command
    ]
    for pid in victim:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: bool(clock.sleeps))
    await clock.up()
    assert (await clock.call("get_current_time", {"timezone": "UTC"})).ok


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_the_everything_server(start: Start, cache: Path, transport: str) -> None:
    command = mcp_servers.everything_server(cache)
    async with mcp_servers.HttpServer(command) as http:
        settings = {"command": [*command, "stdio"]} if transport == "stdio" else {"url": http.url}
        every = start("every", **settings)
        await every.up()
        assert {"every__echo", "every__get-sum", "every__get-tiny-image"} <= every.names
        assert (await every.call("echo", {"message": "hello"})).text == "Echo: hello"
        assert "5" in (await every.call("get-sum", {"a": 2, "b": 3})).text
        assert re.search(r"\[image/png, about \d+ bytes", (await every.call("get-tiny-image")).text)
        assert (await every.call("get-sum", {"a": "x"})).ok is False

        name, args = "trigger-long-running-operation", {"duration": 60, "steps": 60}
        calls = [asyncio.create_task(every.call(name, args)) for _ in range(2)]
        assert (await every.call("echo", {"message": "meanwhile"})).ok  # a slow call holds no other up
        began = time.monotonic()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert time.monotonic() - began < 1.0
        assert (await every.call("echo", {"message": "still there"})).ok

        if transport == "http":
            await http.kill()
            assert (await every.call("echo", {"message": "anybody?"})).text.endswith(
                "cannot be reached just now"
            )
            await until(lambda: not every.server.state.endswith("tools"))
            assert every.names == set()
            assert every.faults["tools.mcp.every"]
            await http.start()
        else:
            victim = next(
                pid for pid, line in below(os.getpid()).items() if "leash" not in line and "stdio" in line
            )
            os.kill(victim, signal.SIGKILL)
            await until(lambda: bool(every.sleeps))
        await every.up()
        assert every.faults == {}
        assert (await every.call("echo", {"message": "again"})).text == "Echo: again"


# -- of ours -----------------------------------------------------------------------------------------


async def test_a_call_that_is_stopped_is_cancelled_at_the_server(start: Start, ours: Ours) -> None:
    server = start("ours", command=ours.command, cwd=ROOT)
    await server.up()
    call = asyncio.create_task(server.call("hang", {"name": "a"}))
    await until(lambda: {"begun": "a"} in ours.notes)
    call.cancel()
    await asyncio.wait({call})
    await until(lambda: {"ended": "a"} in ours.notes)
    assert (await server.call("much", {"size": 3})).text == "xxx"


async def test_a_call_that_takes_too_long_costs_itself_alone(start: Start, ours: Ours) -> None:
    server = start("ours", command=ours.command, cwd=ROOT, timeout="300ms")
    await server.up()
    assert "took longer than 0.3 seconds" in (await server.call("hang", {"name": "a"})).text
    await until(lambda: {"ended": "a"} in ours.notes)
    assert (await server.call("much", {"size": 3})).text == "xxx"
    assert server.sleeps == []


async def test_a_large_result_is_cut(start: Start, ours: Ours) -> None:
    server = start("ours", command=ours.command, cwd=ROOT)
    await server.up()
    outcome = await server.call("much", {"size": 1_000_000})
    assert outcome.ok
    assert len(outcome.text) <= MAX_OUTPUT
    assert outcome.text.endswith("[cut: 1000000 bytes in all]")


async def test_names_are_what_providers_take_and_none_is_doubled(start: Start, ours: Ours) -> None:
    server = start("ours", command=ours.command, cwd=ROOT)
    await server.up()
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in server.names)
    alike = sorted(name for name in server.names if "note" in name)
    assert len(alike) == 2
    answers = {(await server.box.call(name, {"word": "w"}, SCOPE)).text for name in alike}
    assert answers == {"noted w", "noted w, too"}


async def test_new_tools_are_followed(start: Start, ours: Ours) -> None:
    server = start("ours", command=ours.command, cwd=ROOT)
    await server.up()
    assert (await server.call("grown")).misused
    assert (await server.call("grow")).text == "grown"
    await until(lambda: "ours__grown" in server.names)
    assert (await server.call("grown")).text == "I am new."


async def test_a_server_sees_its_own_environment_and_none_of_our_secrets(
    start: Start, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "TELEGRAM_BOT_TOKEN", "LUNAR_HTTP_TOKEN", "MY_SECRET"):
        monkeypatch.setenv(name, "canary")
    server = start("ours", command=ours.command, cwd=ROOT, env={"API_TOKEN": "its own", "LANG": "C"})
    await server.up()
    seen = json.loads((await server.call("environment")).text)
    assert "canary" not in str(seen)
    assert seen["API_TOKEN"] == "its own"


async def test_a_server_that_ends_is_started_again_and_again_with_pauses(start: Start, ours: Ours) -> None:
    server = start("ours", command=ours.command, cwd=ROOT)
    await server.up()
    for life in range(1, 4):
        await server.call("leave", {"code": 3})
        await until(lambda life=life: len(server.sleeps) == life)
        await server.up()
    assert [round(pause, 2) for pause in server.sleeps] == sorted(round(pause, 2) for pause in server.sleeps)
    assert 0.7 < server.sleeps[0] < 1.3
    assert 2.9 < server.sleeps[2] < 5.1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"command": ["/no/such/program"]}, ""),
        ({"command": [sys.executable, "-c", "print('hello')"]}, ""),
        ({"url": "http://127.0.0.1:9/mcp"}, "ConnectError: "),
        ({"command": ["x"], "cwd": "/no/such/folder"}, "FileNotFoundError: "),
    ],
)
async def test_a_server_that_cannot_be_started_is_told_of(
    start: Start, settings: dict[str, Any], why: str
) -> None:
    server = start("lost", **settings)
    await until(lambda: len(server.sleeps) >= 2)
    assert server.faults["tools.mcp.lost"].startswith(why)
    assert server.server.state == server.faults["tools.mcp.lost"]
    assert "There is no tool" in (await server.call("x")).text
    await asyncio.wait_for(server.server.ready(SESSION), 1)


async def test_a_server_that_says_nothing_holds_no_turn_up_for_long(
    start: Start, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_server, "PATIENCE", 0.05)
    monkeypatch.setattr(mcp_server, "_STARTING", 2.0)
    server = start("ours", command=(*ours.command, "mute"), cwd=ROOT)
    await asyncio.wait_for(server.server.ready(SESSION), 1)
    assert server.server.state == "starting"
    await until(lambda: bool(server.sleeps))
    assert server.faults["tools.mcp.ours"] == "it does not answer in time"


async def test_its_whole_group_ends_with_the_gateway(ours: Ours) -> None:
    program = f"""
import asyncio, os
from gateway.agent.mcp_server import McpServer
from gateway.config import McpServer as Settings
async def main():
    server = McpServer("ours", Settings(command={ours.command!r}, cwd={str(ROOT)!r}), dict(os.environ), {{}})
    server.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT)
    await until(lambda: bool(ours.notes))
    gateway.send_signal(signal.SIGKILL)
    await gateway.wait()
    await until(lambda: all(map(gone, ours.pids())))


async def test_its_whole_group_ends_when_it_is_stopped(start: Start, ours: Ours) -> None:
    server = start("ours", command=ours.command, cwd=ROOT)
    await server.up()
    await server.server.stop()
    await until(lambda: all(map(gone, ours.pids())))


async def test_the_tools_that_ask(start: Start, ours: Ours) -> None:
    server = start("ours", command=ours.command, cwd=ROOT, ask=["much", "note.it"])
    await server.up()
    asking = {name for name in server.names if server.box.asks(name)}
    assert "ours__much" in asking
    assert len(asking) == 2
    assert not server.box.asks("ours__grow")


async def test_what_the_configuration_says_holds_while_it_is_down() -> None:
    asked = {"idempotent": ["b.c"]}
    server = McpServer("ours", Settings(url="http://127.0.0.1:9", **asked), {}, {})
    assert [server.repeatable(name) for name in ("ours__b_c", "ours__a", "other__b_c")] == [
        True,
        False,
        False,
    ]
    server = McpServer("ours", Settings(url="http://127.0.0.1:9", idempotent=True), {}, {})
    assert [server.repeatable(name) for name in ("ours__b_c", "other__b_c")] == [True, False]


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    names = {exposed("server", "x" * 80 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) == 64 for name in names)
