"""Many WebSocket clients that say hello and nothing more: bytes of our own, for a library's would not fit."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from typing import Any

_UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: bHVuYXItdGVzdC1rZXkhIQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_AT_ONCE = 100
TEXT, CONTINUATION, CLOSE, PING, PONG = 1, 0, 8, 9, 10


def frame(opcode: int, payload: bytes, *, final: bool = True, size: int | None = None) -> bytes:
    """One frame as a client sends it, masked by zeros; `size` is what it says of itself."""
    length = len(payload) if size is None else size
    head = bytes([opcode | (0x80 if final else 0)])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 1 << 16:
        head += b"\xfe" + struct.pack(">H", length)
    else:
        head += b"\xff" + struct.pack(">Q", length)
    return head + bytes(4) + payload


def hello(**more: Any) -> bytes:
    """The first frame."""
    return frame(TEXT, json.dumps({"type": "hello", "protocol": 1, **more}).encode())


class Idler(asyncio.Protocol):
    """One client that keeps the connection and answers pings; one that is not `reading` does neither."""

    def __init__(self, first: bytes = hello(), *, reading: bool = True) -> None:
        self._first = first
        self._reading = reading
        self._seen = b""
        self.welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self._reading:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # by itself it grows to megabytes
        transport.write(_UPGRADE + self._first)

    def data_received(self, data: bytes) -> None:
        if b'"welcome"' in data and not self.welcome.done():
            self.welcome.set_result(None)
            if not self._reading:
                self.transport.pause_reading()
        if data[0] == 0x80 | CLOSE:
            self.transport.close()
        self._seen = (self._seen + data)[-2:]
        if self._seen == bytes([0x80 | PING, 0]):  # aiohttp's pings are empty, and come alone
            self.transport.write(frame(PONG, b""))

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.welcome, self.lost):
            if not future.done():
                future.set_result(None)


class Crowd:
    """Clients on one port; they leave when the block ends."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: list[Idler] = []

    async def come(self, count: int, first: bytes | None = None, *, reading: bool = True) -> None:
        """Connect so many, and wait until each is welcome."""
        loop = asyncio.get_running_loop()
        for begun in range(0, count, _AT_ONCE):
            made = await asyncio.gather(
                *(
                    loop.create_connection(
                        lambda: Idler(first or hello(), reading=reading), "127.0.0.1", self.port
                    )
                    for _ in range(min(_AT_ONCE, count - begun))
                )
            )
            clients = [client for _, client in made]
            self.clients += clients
            async with asyncio.timeout(60):
                await asyncio.gather(*(client.welcome for client in clients))

    @property
    def connected(self) -> int:
        return sum(not client.lost.done() for client in self.clients)

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in self.clients:
            if not client.transport.is_closing():  # one that has closed by itself raises
                client.transport.abort()
        await asyncio.gather(*(client.lost for client in self.clients))


def resident(pid: int) -> float:
    """A process's memory in MiB."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)
