"""MCP servers that say too much, or nothing any more: what they hold of the gateway has an end."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from mcp.client import stdio

from gateway.agent import mcp_connection, mcp_server
from gateway.agent.mcp_server import McpServer
from gateway.agent.tools import ToolFailed
from gateway.config import McpServer as Settings
from tests.fakes.processes import below, until


class Server:
    """A server over HTTP of which each method's answer is chosen by the test."""

    def __init__(self) -> None:
        self.url = ""
        self.said: list[str] = []  # methods, and "DELETE"
        self.answers: dict[str, Any] = {
            "tools/list": {"tools": [{"name": "one", "inputSchema": {"type": "object"}}]}
        }
        self.silent = False  # whether it takes what it is asked, and answers nothing

    async def handle(self, request: web.Request) -> web.StreamResponse:
        message = await request.json() if request.method == "POST" else {"method": request.method}
        self.said.append(message["method"])
        if self.silent or request.method == "GET":
            await asyncio.Event().wait()
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
            return _answer(message, {"protocolVersion": version, **about})
        if "id" not in message:
            return web.Response(status=202)
        if (answer := self.answers.get(message["method"])) is None:
            return web.json_response(
                {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}
            )
        return await answer(request) if callable(answer) else _answer(message, answer)


def _answer(message: dict[str, Any], result: dict[str, Any]) -> web.Response:
    answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
    return web.json_response(answer, headers={"mcp-session-id": "s1"})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/mcp", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
    yield server
    await runner.cleanup()


# Greets and lists; what it does then is said by its first argument.
_PROGRAM = """
import json, signal, sys, time

def say(**what):
    print(json.dumps({"jsonrpc": "2.0", **what}), flush=True)

def line():
    while True:
        print("x" * 65536, end="", flush=True)

def ask():
    for number in range(10_000):
        say(id=number, method="ping")
    time.sleep(1000)

def stay():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(id=asked["id"], result={"content": []})

for text in sys.stdin:
    asked = json.loads(text)
    if asked["method"] == "initialize":
        about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
        say(id=asked["id"], result={"protocolVersion": asked["params"]["protocolVersion"], **about})
    elif asked["method"] == "tools/list":
        say(id=asked["id"], result={"tools": [{"name": "one", "inputSchema": {"type": "object"}}]})
    elif asked["method"] == "tools/call":
        globals()[sys.argv[1]]()
    elif "id" in asked:
        say(id=asked["id"], error={"code": -32601, "message": "no"})
time.sleep(1000)
"""


def program(deed: str) -> tuple[str, ...]:
    return (sys.executable, "-c", _PROGRAM, deed)


Start = Callable[..., McpServer]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[McpServer] = []

    def begin(**settings: Any) -> McpServer:
        one = McpServer("far", Settings(**settings), dict(os.environ), {}, lambda _: asyncio.sleep(0.01))
        running.append(one)
        one.start()
        return one

    yield begin
    await asyncio.gather(*(one.stop() for one in running))


async def test_a_server_that_fell_silent_is_let_go_of_and_comes_back(
    server: Server, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_server, "_LOOK_AGAIN", 0.05)
    monkeypatch.setattr(mcp_server, "_ANSWERING", 0.05)
    monkeypatch.setattr(mcp_connection, "_GOODBYE", 0.05)
    far = start(url=server.url)
    await until(lambda: far.state == "1 tools")
    server.silent = True
    await until(lambda: far.state == "it does not answer in time")
    assert "DELETE" in server.said  # it was told
    assert far.tools() == []
    server.silent = False
    monkeypatch.setattr(mcp_server, "_ANSWERING", 10.0)
    await until(lambda: far.state == "1 tools")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_answer_without_end_is_read_no_further_than_its_limit(
    server: Server, start: Start, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(mcp_connection, "_LONGEST_ANSWER", 1 << 20)
    far = start(url=server.url)
    await until(lambda: far.state == "1 tools")
    server.answers["tools/call"] = partial(_endless, encoding)
    with pytest.raises(ToolFailed, match="more than 1048576 bytes"):
        await far.tools()[0].run()
    server.answers["tools/call"] = {"content": [{"type": "text", "text": "well"}]}
    assert await far.tools()[0].run() == "well"


async def _endless(encoding: str, request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Encoding": encoding})
    await answer.prepare(request)
    block = bytes(64 * 1024)
    while True:
        await answer.write(block)


async def test_a_line_without_end_ends_the_connection(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_connection, "_LONGEST_ANSWER", 1 << 20)
    far = start(command=program("line"))
    await until(lambda: far.state == "1 tools")
    with pytest.raises(ToolFailed, match="cannot be reached just now"):
        await far.tools()[0].run()
    await until(lambda: far.state == "1 tools")  # it was started again


async def test_a_program_that_asks_and_asks_and_takes_no_answer_is_let_go_of(start: Start) -> None:
    far = start(command=program("ask"))
    await until(lambda: far.state == "1 tools")
    before = len(asyncio.all_tasks())
    call = asyncio.create_task(far.tools()[0].run())
    most = 0
    while not call.done():
        await asyncio.sleep(0)
        most = max(most, len(asyncio.all_tasks()))
    with pytest.raises(ToolFailed, match="cannot be reached just now"):
        await call
    assert most < before + 200
    await until(lambda: far.state == "1 tools")


async def test_a_program_that_will_not_go_is_ended_however_impatient_the_stop(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("PROCESS_TERMINATION_TIMEOUT", "FORCE_KILL_TIMEOUT"):
        monkeypatch.setattr(stdio, limit, 0.3)
    monkeypatch.setattr(mcp_server, "_ENDING", 0.05)
    before = below(os.getpid()).keys()
    far = start(command=program("stay"))
    await until(lambda: far.state == "1 tools")
    await far.tools()[0].run()
    ours = below(os.getpid()).keys() - before
    assert ours
    async with asyncio.timeout(20):
        await far.stop()
    await until(lambda: not ours & below(os.getpid()).keys())
