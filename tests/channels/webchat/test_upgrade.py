"""From an HTTP request to a WebSocket, beside other requests on the same server."""

import asyncio
import base64
import gc
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from channels.webchat.upgrade import upgrade
from channels.webchat.websocket import WebSocket
from tests.fakes.processes import until
from tests.faults.crowd import TEXT, frame

TIMEOUT = 15.0
KEY = base64.b64encode(b"sixteen bytes ab").decode()
UPGRADE = (
    f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13"
)


class Site:
    """An aiohttp server with a page and a WebSocket."""

    def __init__(self, runner: web.AppRunner, clients: "asyncio.Queue[WebSocket]") -> None:
        self.runner = runner
        self.clients = clients

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.runner.addresses[0])


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    clients: asyncio.Queue[WebSocket] = asyncio.Queue()

    async def websocket(request: web.Request) -> web.StreamResponse:
        client = upgrade(request)
        if isinstance(client, web.Response):
            return client
        clients.put_nowait(client)
        return web.Response()

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="page")

    app = web.Application()
    app.router.add_get("/ws", websocket)
    app.router.add_get("/", page)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Site(runner, clients)
    finally:
        await runner.cleanup()


def request(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


async def test_the_answer_proves_that_the_key_was_read() -> None:
    async with site() as here:
        reader, writer = await here.connect()
        writer.write(request("/ws", UPGRADE))
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 101 ")
        proof = hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        assert f"Sec-WebSocket-Accept: {base64.b64encode(proof).decode()}\r\n" in head
        writer.transport.abort()


@pytest.mark.parametrize("earlier", [b"", request("/") * 2], ids=["first", "after others"])
@pytest.mark.parametrize("split", [0, 5, 1])
async def test_what_the_client_says_without_waiting_is_not_lost(earlier: bytes, split: int) -> None:
    async with site() as here:
        reader, writer = await here.connect()
        hello = frame(TEXT, b"hello") + frame(TEXT, b"x" * 100_000)
        writer.write(earlier + request("/ws", UPGRADE) + hello[:split])
        await asyncio.sleep(0)
        writer.write(hello[split:])
        client = await here.clients.get()
        async with asyncio.timeout(TIMEOUT):
            assert await client.receive() == b"hello"
            assert await client.receive() == b"x" * 100_000
            await client.send([b"welcome"])
            data = b""
            while not data.endswith(b"\x81\x07welcome"):
                data += await reader.read(1 << 16)
        assert data.count(b"page") == earlier.count(b"GET")
        assert data.count(b"HTTP/1.1 ") == 1 + earlier.count(b"GET")  # what the handler returns goes nowhere
        writer.transport.abort()


async def test_the_server_keeps_nothing_of_the_request() -> None:
    async with site() as here:
        reader, writer = await here.connect()
        writer.write(request("/ws", UPGRADE, "X-Canary: 7f3a"))
        await reader.readuntil(b"\r\n\r\n")
        client = await here.clients.get()
        await asyncio.sleep(0)
        server = here.runner.server
        assert server is not None
        await until(lambda: not server.connections)
        gc.collect()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, web.Request)]
        writer.write(frame(TEXT, b"still there"))
        assert await client.receive() == b"still there"
        writer.transport.abort()


@pytest.mark.parametrize(
    ("headers", "status"),
    [((), 426), (("Upgrade: websocket", "Connection: Upgrade"), 426), ((UPGRADE.replace("13", "12"),), 426)],
    ids=["page", "no key", "version"],
)
async def test_what_is_no_upgrade_is_told_so_and_may_go_on(headers: tuple[str, ...], status: int) -> None:
    async with site() as here:
        reader, writer = await here.connect()
        writer.write(request("/ws", *headers))
        async with asyncio.timeout(TIMEOUT):
            answer = await reader.readuntil(b"This is a WebSocket.\n")
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            writer.write(request("/"))
            await reader.readuntil(b"page")
        writer.close()
