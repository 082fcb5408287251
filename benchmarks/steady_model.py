"""A model server whose every reply comes at a steady rate, and costs little to make.

`python -m benchmarks.steady_model RATE TOKENS` prints its base URL. Each token is a space and the moment at
which it was written, in nanoseconds of the monotonic clock: whoever reads it on this machine knows the delay.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import uvloop

_PHASES = 25  # groups of replies, whose tokens come one group after the other
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_CHUNK = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1700000000,"model":"fake",'
    b'"choices":[{"index":0,"delta":{%b},"finish_reason":%b}]}\n\n'
)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_END = _framed(_CHUNK % (b"", b'"stop"') + b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Pulse:
    """Writes the tokens of all replies, a group of them at a time."""

    def __init__(self, rate: float, tokens: int) -> None:
        self._apart = 1 / rate / _PHASES
        self._tokens = tokens
        self._groups: list[dict[asyncio.Transport, int]] = [{} for _ in range(_PHASES)]

    def begin(self, transport: asyncio.Transport) -> None:
        """One more reply."""
        transport.write(_HEAD)
        min(self._groups, key=len)[transport] = self._tokens

    def end(self, transport: asyncio.Transport) -> None:
        """Nobody wants it any more."""
        for group in self._groups:
            group.pop(transport, None)

    async def run(self) -> None:
        """Write until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for group in self._groups:
                due += self._apart
                await asyncio.sleep(max(0.0, due - loop.time()))
                self._write(group)

    def _write(self, group: dict[asyncio.Transport, int]) -> None:
        token = _framed(_CHUNK % (b'"content":" %d"' % time.monotonic_ns(), b"null"))
        for transport, left in list(group.items()):
            transport.write(token if left else _END)
            group[transport] = left - 1
            if not left:
                del group[transport]


class _Connection(asyncio.Protocol):
    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self._said = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._pulse.end(self._transport)

    def data_received(self, data: bytes) -> None:
        self._said += data
        head, end, body = self._said.partition(b"\r\n\r\n")
        length = int((head.lower().partition(b"content-length:")[2].split(b"\r\n") or [b"0"])[0] or 0)
        if not end or len(body) < length:
            return
        self._said = b""
        if head.startswith(b"POST "):
            self._pulse.begin(self._transport)
        else:
            self._transport.write(_NOT_FOUND)


async def _serve(rate: float, tokens: int) -> None:
    pulse = Pulse(rate, tokens)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(pulse), "127.0.0.1", 0, backlog=4096
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await pulse.run()


if __name__ == "__main__":
    uvloop.run(_serve(float(sys.argv[1]), int(sys.argv[2])))
