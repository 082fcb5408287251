"""One client's WebSocket after the upgrade: `websockets` knows the protocol, the bytes are carried here."""

from __future__ import annotations

import asyncio
import logging

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from channels import wire
from channels.errors import Refused

_ON_THE_WIRE = 2 * wire.MAX_CLIENT_FRAME  # what the library takes: our own limit gets to say what is wrong
_AHEAD = 64 * 1024  # bytes that a client may say before what it said is taken up
_PIECE = 8 * 1024  # bytes that are parsed before their frames are counted: a read may bring 256 KiB
_FRAMES = 1000  # that may come before what was said is taken up, or from ping to ping
_BACKLOG = 4 * 1024 * 1024  # bytes that may wait for a client: pongs come on top of what is bounded
_LAST_WORDS = 1.0  # seconds that a client has to say goodbye, too
_FLOOD = "Those were too many frames at once."
_BINARY = "A frame is one JSON object in a text message, not in a binary one."
_log = logging.getLogger("websockets.server")
_log.setLevel(logging.WARNING)  # below, it writes whole frames, and those hold secrets


class WebSocket(asyncio.Protocol):
    """A `channels.connection.Carrier`: one frame, one text message.

    It has neither tasks nor timers, and no more buffers than it needs: thousands of them are idle.
    """

    __slots__ = (
        "_ahead",
        "_binary",
        "_frames",
        "_full",
        "_gone",
        "_half",
        "_heard",
        "_incoming",
        "_lost",
        "_protocol",
        "_room",
        "_transport",
        "_waiter",
        "_waits",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._protocol = Protocol(Side.SERVER, max_size=_ON_THE_WIRE, logger=_log)
        self._half = bytearray()  # of a message that is not whole yet, however many frames it came in
        self._binary = False  # whether that is no text
        self._incoming: list[bytes | Refused] = []  # whole messages
        self._ahead = 0  # their bytes; where it is too many, nothing more is read
        self._frames = 0  # frames of whatever kind that came meanwhile; too many are a flood
        self._waiter: asyncio.Future[None] | None = None  # of whoever receives
        self._full = False  # whether the client does not take what it is sent
        self._room: asyncio.Future[None] | None = None  # of whoever waits until it does
        self._heard = True  # whether the client gave a sign of life since the last ping
        self._waits = 0  # bytes that waited for the client at the last ping
        self._lost = False
        self._gone: asyncio.Future[None] | None = None  # set by `close`

    # -- the carrier -----------------------------------------------------------------------------

    async def receive(self) -> bytes | None:
        """The next message; None when there is no other. Raises `Refused` for what is none."""
        while not self._incoming:
            if self._lost or self._protocol.state is not State.OPEN:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._incoming.pop(0)
        if not self._incoming:
            self._read_on()
        if isinstance(message, Refused):
            raise message
        return message

    async def send(self, frames: list[bytes]) -> None:
        """Send messages, and wait while the client does not take them; raises `ConnectionError`."""
        if self._protocol.close_rcvd is not None:
            return  # it reads no more, but what it said before its goodbye is still carried out
        if self._protocol.state is State.OPEN and not self._lost:
            for frame in frames:
                self._protocol.send_text(frame)
            self._flush()
        while self._full and not self._lost:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        if self._lost or self._protocol.state is not State.OPEN:
            raise ConnectionResetError("the client is gone")

    async def close(self, code: int) -> None:
        """Say goodbye with this code, and wait a little for the client's."""
        if self._lost:
            return
        self._gone = asyncio.get_running_loop().create_future()
        self._incoming.clear()
        self._read_on()
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000 if code == 1006 else code)
            self._flush()
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._gone
        except TimeoutError:
            pass
        finally:
            # A transport closes when all is sent: never, where the client is there and does not read.
            self._transport.abort()

    @property
    def lost(self) -> bool:
        """Whether the connection is."""
        return self._lost

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._frames = 0
        if self._protocol.state is State.OPEN:
            self._heard = False
            self._protocol.send_ping(b"")
            self._flush()
            self._waits = self._transport.get_write_buffer_size()

    def check(self) -> None:
        """Let go of a client that has given no sign of life since the ping, if that could be read.

        That it takes what it is sent is one, too: its answer stands behind all that.
        """
        takes = self._transport.get_write_buffer_size() < self._waits
        if not self._heard and not takes and self._ahead <= _AHEAD:
            self._transport.abort()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            # uvloop raises a RuntimeError for a write to a closed transport, asyncio nothing at all.
            if self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            else:
                self._transport.write_eof()

    # -- the transport ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._heard = True
        for begin in range(0, len(data), _PIECE):
            self._parse(data[begin : begin + _PIECE])
            if self._frames > _FRAMES:
                self._flooded()
                return
        self._flush()
        self._wake()
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > _BACKLOG:
            self._transport.abort()
        elif self._ahead > _AHEAD:
            self._transport.pause_reading()

    def _parse(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            self._frames += 1
            if self._gone is None and isinstance(frame, Frame):
                self._take(frame)

    def _flooded(self) -> None:
        """Empty frames are easily sent and cost much to read: tell the client, and read nothing more."""
        if self._gone is not None:
            self._transport.abort()
            return
        self._transport.pause_reading()
        self._half.clear()
        self._incoming[:] = [Refused("rate_limited", _FLOOD)]
        self._wake()

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
        self._half += frame.data
        if not frame.fin:
            return
        message = bytes(self._half)
        self._half.clear()
        self._ahead += len(message)
        too_large = len(message) > wire.MAX_CLIENT_FRAME
        refused = Refused("frame_too_large" if too_large else "bad_utf8", _BINARY) if self._binary else None
        self._incoming.append(refused or message)

    def _read_on(self) -> None:
        if self._ahead > _AHEAD and not self._lost:
            self._transport.resume_reading()
        self._ahead = self._frames = 0

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._wake()
        self.resume_writing()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._heard = True
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
