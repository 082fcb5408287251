"""The WebSocket: CPU a message, memory an idle connection, CPU a streamed chunk, beside an aiohttp echo."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import subprocess
import sys
import time

import aiohttp

from benchmarks.process import Gateway, cpu, gateway, model_server, resident
from benchmarks.table import Row

CONNECTIONS, BURST = 50, 10
_HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def _frames(url: str, rounds: int, hello: str | None) -> float:
    """Open 50 connections, say `/help` ten times on each (the burst that is allowed), and do that again.

    Returns messages a second, connecting included: the floor does the same.
    """

    async def talk(http: aiohttp.ClientSession) -> None:
        async with http.ws_connect(url, compress=0) as socket:
            if hello:
                await socket.send_str(hello)
                await socket.receive()
            for number in range(BURST):
                await socket.send_str(json.dumps({"type": "message", "id": f"m{number}", "text": "/help"}))
                await socket.receive()

    async with aiohttp.ClientSession() as http:
        began = time.perf_counter()
        for _ in range(rounds):
            await asyncio.gather(*(talk(http) for _ in range(CONNECTIONS)))
        return CONNECTIONS * BURST * rounds / (time.perf_counter() - began)


def _echo_server() -> None:
    """The floor: `python -m benchmarks.webchat echo` prints its port and echoes text frames."""
    import uvloop
    from aiohttp import web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/ws", echo)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _floor(rounds: int) -> tuple[float, float]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.webchat", "echo"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = f"ws://127.0.0.1:{int(process.stdout.readline())}/ws"
        asyncio.run(_frames(url, 1, None))
        used = cpu(process.pid)
        rate = asyncio.run(_frames(url, rounds, None))
        return rate, (cpu(process.pid) - used) / (CONNECTIONS * BURST * rounds)
    finally:
        process.kill()
        process.wait()


async def _idle(daemon: Gateway, count: int) -> float:
    """Open idle connections, each with a session of its own; returns KiB of the daemon's memory for each."""
    port = int(daemon.url.rpartition(":")[2])
    hello = json.dumps({"type": "hello", "protocol": 1}).encode()
    masked = bytes([0x81, 0x80 | len(hello)]) + bytes(4) + hello
    opened = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(_HANDSHAKE.format(port=port).encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(masked)
        while b'"welcome"' not in await reader.read(1024):
            pass
        opened.append(writer)

    for _ in range(20):
        await one()
    before = resident(daemon.pid)
    for _ in range(count // 50):
        await asyncio.gather(*(one() for _ in range(50)))
    grown = resident(daemon.pid) - before
    for writer in opened:
        writer.transport.abort()
    return grown * 1024 / count


async def _stream(daemon: Gateway, render: str, words: int) -> tuple[float, int]:
    """One long reply; returns the daemon's CPU seconds for it and the frames that came."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{daemon.url}/ws", compress=0) as socket:
        await socket.send_str(json.dumps({"type": "hello", "protocol": 1, "render": render}))
        await socket.receive()
        used, frames = cpu(daemon.pid), 0
        text = " ".join(["word"] * words)
        await socket.send_str(json.dumps({"type": "message", "id": "m1", "text": text}))
        while True:
            frame = json.loads((await socket.receive()).data)
            frames += frame["type"] in ("delta", "block")
            if frame["type"] == "done":
                return cpu(daemon.pid) - used, frames


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    rounds = 10 if quick else 60
    idle = 1_000 if quick else 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * idle + 500)), hard))
    hello = json.dumps({"type": "hello", "protocol": 1})
    floor_rate, floor_cpu = _floor(rounds)
    with model_server() as url, gateway(url) as daemon:
        ws = daemon.url.replace("http", "ws") + "/ws"
        asyncio.run(_frames(ws, 1, hello))
        used = cpu(daemon.pid)
        rate = asyncio.run(_frames(ws, rounds, hello))
        per_message = (cpu(daemon.pid) - used) / (CONNECTIONS * BURST * rounds)
        asyncio.run(_stream(daemon, "html", 100))
        words = 12_000
        chunks = words * 5 // 4  # what the model server sends: four characters a chunk
        streams = {render: asyncio.run(_stream(daemon, render, words)) for render in ("text", "html")}
        memory = asyncio.run(_idle(daemon, idle))
    ratio = per_message / floor_cpu
    rows = [
        Row("messages a second, 50 connections", f"{rate:.0f}", f"{floor_rate:.0f}", rate / floor_rate),
        Row(
            "CPU a message and its notice", f"{per_message * 1e6:.0f} µs", f"{floor_cpu * 1e6:.0f} µs", ratio
        ),
        Row(f"memory an idle connection, of {idle}", f"{memory:.1f} KiB"),
    ]
    for render, (seconds, frames) in streams.items():
        rows.append(
            Row(
                f"CPU a streamed chunk, {render} ({frames} frames)",
                f"{seconds / chunks * 1e6:.0f} µs",
                f"{floor_cpu * 1e6:.0f} µs",
                seconds / chunks / floor_cpu,
            )
        )
    return rows


if __name__ == "__main__" and sys.argv[1:] == ["echo"]:
    _echo_server()
