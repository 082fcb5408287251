"""From an HTTP request to a WebSocket."""

from __future__ import annotations

import socket

from aiohttp import web
from websockets.utils import accept_key

from channels.webchat.websocket import WebSocket

_SEND_BUFFER = 256 * 1024  # bytes in the kernel; by itself it grows to 4 MB before a send waits
_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)


def upgrade(request: web.Request) -> WebSocket | web.Response:
    """The WebSocket that the request asks for, or what to answer where it asks for none.

    The connection is taken out of aiohttp's hands, which would keep the request, its headers, two tasks and
    the buffers of two parsers for as long as the client stays: 13 KiB, and more for a browser's.
    """
    try:
        if not web.WebSocketResponse().can_prepare(request):
            return web.Response(status=426, text="This is a WebSocket.\n", headers={"Upgrade": "websocket"})
    except ValueError:
        return web.Response(status=400)  # its key is not ASCII
    if (transport := request.transport) is None:
        return web.Response(status=400)  # the client is gone: nobody reads this
    accepted = _ACCEPTED % accept_key(request.headers["Sec-WebSocket-Key"]).encode()
    early = _detached(request)
    client = WebSocket(transport)
    transport.set_protocol(client)
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    transport.write(accepted)
    if early:
        client.data_received(early)
    return client


def _detached(request: web.Request) -> bytes:
    """Let aiohttp believe that the connection was lost; what the client said beyond its request."""
    rest = _Rest()
    request.protocol.set_parser(rest)  # type: ignore[arg-type] # it is only fed
    request.protocol.transport = None  # or it would be closed
    request.protocol.connection_lost(None)
    return bytes(rest.data)


class _Rest:
    """Stands for a parser, and keeps what it is fed."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        return
