"""A real OpenAI-compatible HTTP server on loopback that does what it is told.

    async with OpenAIServer() as server:
        server.script(Say("Hello"), Status(500))       # the next two requests
        server.reply = lambda body: Say("…")           # all others, from the conversation they carry
        ... server.base_url, server.requests, server.disconnects

By itself: `python -m tests.fakes.openai_server --port 0 --delay-ms 0` prints its base URL as its first line
and answers "echo: <the last text of the user>"; with `--hang --release PATH` only once PATH exists.
"""

import argparse
import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.fakes.openai_behaviours import (
    BadJson,
    Behaviour,
    BrokenAfter,
    CallTools,
    ChoicesEmpty,
    ChoicesNull,
    CutAfter,
    EmptyReply,
    EndAfter,
    ErrorInStream,
    Event,
    Events,
    Filtered,
    Hang,
    Html200,
    HtmlInStream,
    Length,
    NoDone,
    NoFinish,
    PingForEver,
    Raw,
    Reset,
    Say,
    Stall,
    Status,
    Trickle,
    WholeJson,
    chunk,
    encoded,
)

__all__ = [
    "Asked",
    "BadJson",
    "Behaviour",
    "BrokenAfter",
    "CallTools",
    "ChoicesEmpty",
    "ChoicesNull",
    "CutAfter",
    "EmptyReply",
    "EndAfter",
    "ErrorInStream",
    "Events",
    "Filtered",
    "Hang",
    "Html200",
    "HtmlInStream",
    "Length",
    "NoDone",
    "NoFinish",
    "OpenAIServer",
    "PingForEver",
    "Raw",
    "Reset",
    "Say",
    "Stall",
    "Status",
    "Trickle",
    "WholeJson",
    "chunk",
    "last_user_text",
]


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]  # names in lower case


def last_user_text(body: dict[str, Any]) -> str:
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            content = message["content"]
            return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    return ""


def echo(body: dict[str, Any]) -> Behaviour:
    return Say(f"echo: {last_user_text(body)}")


@dataclass
class OpenAIServer:
    """`reply` answers whatever `script` has not; both may be changed at any time."""

    reply: Callable[[dict[str, Any]], Behaviour] = echo
    models: list[str] = field(default_factory=lambda: ["fake-1"])
    host: str = "127.0.0.1"
    port: int = 0
    listener: socket.socket | None = None  # one that listens already, instead of host and port
    base_url: str = ""  # set when it is entered
    requests: list[Asked] = field(default_factory=list)
    peers: list[object] = field(default_factory=list)  # the client's address for each request
    disconnects: int = 0  # how many clients left before their answer was complete
    release: asyncio.Event = field(default_factory=asyncio.Event)  # lets Hang and Stall go on

    def __post_init__(self) -> None:
        self._script: deque[Behaviour] = deque()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        # Without handler_cancellation aiohttp would not tell that a client has left.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        given = self.listener
        site = web.SockSite(self._runner, given) if given else web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.base_url = f"http://{self.host}:{self.port}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.release.set()
        await self._runner.cleanup()

    def script(self, *behaviours: Behaviour) -> None:
        """What the next requests are answered with, in this order."""
        self._script.extend(behaviours)

    def next(self, behaviour: Behaviour) -> None:
        self._script.appendleft(behaviour)

    async def until(self, condition: Callable[["OpenAIServer"], bool], timeout: float = 5.0) -> None:
        """Waits until a condition holds, such as `lambda server: server.disconnects == 1`."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _models(self, _: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.requests.append(Asked(body, {name.lower(): value for name, value in request.headers.items()}))
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername"))
        await self._tell()
        behaviour = self._script.popleft() if self._script else self.reply(body)
        exchange = _Exchange(self, request)
        try:
            await behaviour.answer(exchange)
        except (asyncio.CancelledError, ConnectionError):
            if not exchange.aborted:
                self.disconnects += 1
                await asyncio.shield(self._tell())
            raise
        return exchange.response or web.Response(status=500, text="the behaviour did not answer")


class _Exchange:
    def __init__(self, server: OpenAIServer, request: web.Request) -> None:
        self.release = server.release
        self.next = server.next
        self.aborted = False
        self.response: web.StreamResponse | None = None
        self._request = request

    async def event(self, event: Event) -> None:
        await self.write(encoded(event))

    async def write(self, data: bytes) -> None:
        if self.response is None:
            self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await self.response.prepare(self._request)
            assert self._request.transport is not None
            peer = self._request.transport.get_extra_info("socket")
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if data:
            await self.response.write(data)

    async def end(self) -> None:
        assert self.response is not None
        await self.response.write_eof()

    async def whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.response = web.Response(status=status, body=body, headers=headers)

    def abort(self, reset: bool = False) -> None:
        self.aborted = True
        assert self._request.transport is not None
        if reset:  # closing with a linger of 0 s sends RST instead of FIN
            linger = struct.pack("ii", 1, 0)
            self._request.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
        self._request.transport.abort()


@dataclass(frozen=True)
class _WhenReleased:
    """Like `Hang`, for a process of its own: released by a file."""

    then: Behaviour
    path: Path | None

    async def answer(self, exchange: Any) -> None:
        while self.path is None or not self.path.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.02)
        await self.then.answer(exchange)


async def _serve(options: argparse.Namespace) -> None:
    def reply(body: dict[str, Any]) -> Behaviour:
        if options.tool and body["messages"][-1]["role"] != "tool":
            return CallTools([(options.tool, {})])
        says = Say(f"echo: {last_user_text(body)}", size=options.size, delay=options.delay_ms / 1000)
        return _WhenReleased(says, options.release) if options.hang else says

    async with OpenAIServer(reply=reply, port=options.port) as server:
        print(server.base_url, flush=True)
        await asyncio.Event().wait()


def _main() -> None:
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server for tests and benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before each chunk")
    parser.add_argument("--size", type=int, default=4, help="characters in a chunk")
    parser.add_argument("--tool", metavar="NAME", help="call it once before each answer")
    parser.add_argument("--hang", action="store_true", help="answer nothing until --release exists")
    parser.add_argument("--release", type=Path, metavar="PATH")
    try:
        asyncio.run(_serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    _main()
