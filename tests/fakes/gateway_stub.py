"""A gateway that says what a test tells it to, on a real Unix socket or a real WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from channels import wire
from session import events

_WITHIN = 10.0  # seconds; no test waits for it unless it fails
Frame = TypeVar("Frame", bound=wire.ClientFrame)


class Peer:
    """One client's connection, from the gateway's side."""

    def __init__(self, gateway: GatewayStub, send: Callable[[bytes], Any], close: Callable[[], Any]) -> None:
        self._gateway = gateway
        self._send = send
        self._close = close
        self.inbox: asyncio.Queue[wire.ClientFrame | None] = asyncio.Queue()  # None: it hung up
        self.gone = asyncio.Event()  # set by the stub to end the connection's handler

    async def hear(self, kind: type[Frame]) -> Frame:
        """The next frame, which must be of this kind."""
        async with asyncio.timeout(_WITHIN):
            frame = await self.inbox.get()
        assert isinstance(frame, kind), f"{frame!r} instead of {kind.__name__}"
        return frame

    async def hears_nothing_more(self) -> None:
        """Wait until the client hangs up; it must not have said anything else."""
        async with asyncio.timeout(_WITHIN):
            assert await self.inbox.get() is None

    async def raw(self, data: bytes) -> None:
        """Send these bytes as one frame."""
        await self._send(data)

    async def say(self, *frames: wire.ServerFrame) -> None:
        """Send frames."""
        for frame in frames:
            await self.raw(wire.encode(frame))

    async def welcome(self, **members: Any) -> wire.Hello:
        """Take the hello and answer it."""
        hello = await self.hear(wire.Hello)
        known = {"session_id": "agent:main:cli:local", "agent": "main", "model": "demo", "turns": 0}
        await self.say(wire.Welcome(**{**known, "running": None, **members}))
        return hello

    async def event(self, event: events.Event) -> str:
        """Send an event with the next cursor, which is returned."""
        cursor = self._gateway.next_cursor()
        raw = msgspec.Raw(events.to_json(events.stamped(event)))
        await self.say(wire.EventFrame(cursor=cursor, event=raw))
        return cursor

    async def take(self, *, queued: int = 0) -> wire.Message:
        """Take a message: acknowledge and store it."""
        message = await self.hear(wire.Message)
        await self.say(wire.Ack(id=message.id, cursor="ack", queued=queued))
        await self.event(events.User(content=message.text, id=message.id))
        return message

    async def start(self, turn: str, *answers: str, attempt: int = 1) -> None:
        """Begin a turn on these messages."""
        await self.say(wire.StartedFrame(turn=turn, answers=answers, attempt=attempt))

    async def answer(
        self, turn: str, message_id: str, text: str, finish: events.Finish = "stop", *, stream: bool = True
    ) -> None:
        """Carry out a whole turn that says `text`."""
        await self.start(turn, message_id)
        if stream:
            await self.say(wire.DeltaFrame(turn=turn, text=text))
        await self.finish(turn, message_id, text, finish)

    async def finish(self, turn: str, message_id: str, text: str, finish: events.Finish = "stop") -> None:
        """Close the turn."""
        await self.event(events.Assistant(content=text, turn=turn, answers=(message_id,), finish=finish))

    async def close(self) -> None:
        """Drop the connection."""
        self.gone.set()
        await self._close()


class GatewayStub(Protocol):
    """What both carriers' stubs can do."""

    def next_cursor(self) -> str:
        """The cursor of the next event."""

    async def accept(self) -> Peer:
        """The next connection."""

    async def start(self) -> None:
        """Listen."""

    async def stop(self) -> None:
        """Listen no more and drop every connection, as a daemon that dies."""


class _Stub:
    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Peer] = asyncio.Queue()
        self._peers: list[Peer] = []
        self._events = 0

    def next_cursor(self) -> str:
        self._events += 1
        return f"c{self._events}"

    async def accept(self) -> Peer:
        async with asyncio.timeout(_WITHIN):
            return await self._waiting.get()

    def _came(self, peer: Peer) -> None:
        self._peers.append(peer)
        self._waiting.put_nowait(peer)

    async def _drop_all(self) -> None:
        peers, self._peers = self._peers, []
        for peer in peers:
            await peer.close()


class SocketGateway(_Stub):
    """On a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=2**20)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            self.path.unlink(missing_ok=True)
            await self._drop_all()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(data: bytes) -> None:
            writer.write(data + b"\n")
            await writer.drain()

        async def close() -> None:
            writer.close()

        peer = Peer(self, send, close)
        self._came(peer)
        try:
            while line := await reader.readline():
                peer.inbox.put_nowait(wire.parse(line))
        except OSError:
            pass
        finally:
            peer.inbox.put_nowait(None)
            writer.close()


class WebGateway(_Stub):
    """On a WebSocket at /ws."""

    def __init__(self) -> None:
        super().__init__()
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens; the port stays the same over restarts."""
        return f"ws://127.0.0.1:{self._port}/ws"

    async def start(self) -> None:
        self._server = await serve(self._serve, "127.0.0.1", self._port)
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            await self._drop_all()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, connection: ServerConnection) -> None:
        peer = Peer(self, lambda data: connection.send(data, text=True), connection.close)
        self._came(peer)
        try:
            while True:
                peer.inbox.put_nowait(wire.parse(await connection.recv(decode=False)))
        except ConnectionClosed:
            peer.inbox.put_nowait(None)
