"""WebSocket clients that cost little themselves: bytes in, frames out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Self, cast

import msgspec

_UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = {"type": "hello", "protocol": 1}


def masked(message: dict[str, object]) -> bytes:
    """A message as one text frame, masked by zeros."""
    payload = msgspec.json.encode(message)
    short = len(payload) < 126
    length = bytes([0x80 | len(payload)]) if short else b"\xfe" + len(payload).to_bytes(2)
    return b"\x81" + length + bytes(4) + payload


class Client(asyncio.Protocol):
    """One connection. `hear` gets each frame's payload, as soon as it is whole."""

    __slots__ = ("_buffer", "_heard", "_upgraded", "hear", "transport")

    def __init__(self, hear: Callable[[bytes], None] = lambda payload: None) -> None:
        self.hear = hear
        self._buffer = b""
        self._upgraded = False
        self._heard: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, port: int, hear: Callable[[bytes], None] = lambda payload: None) -> Self:
        """Connect and upgrade."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: cls(hear), "127.0.0.1", port)
        client.transport.write(_UPGRADE % port)
        return client

    async def ask(self, message: dict[str, object]) -> bytes:
        """Say something, and wait for the next frame."""
        self._heard = asyncio.get_running_loop().create_future()
        self.transport.write(masked(message))
        return await self._heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's classes

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head:
                raise RuntimeError(f"the server said {head!r}")
            self._upgraded, self._buffer = True, rest
        while (payload := self._frame()) is not None:
            self.hear(payload)
            if self._heard is not None and not self._heard.done():
                self._heard.set_result(payload)

    def _frame(self) -> bytes | None:
        """The payload of the next frame, taken off the buffer; None where it is not whole yet."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        begin, length = 2, buffer[1]
        if length > 125:
            begin = 4 if length == 126 else 10
            length = int.from_bytes(buffer[2:begin])
        if len(buffer) < begin + length:
            return None
        self._buffer = buffer[begin + length :]
        return buffer[begin : begin + length]
