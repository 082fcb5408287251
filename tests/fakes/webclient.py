"""A client of the gateway's WebSocket that is not ours: the `websockets` library."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin

TIMEOUT = 20.0


class WebClient:
    """One connection; `frames` has all that came."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[dict[str, Any]] = []

    @classmethod
    async def open(
        cls,
        port: int,
        *,
        name: str = "127.0.0.1",
        origin: str | None = None,
        headers: Mapping[str, str] | None = None,
        **hello: Any,
    ) -> Self:
        """Connect to this machine as if it had that name, and say hello; the answer is not read yet."""
        connection = await connect(
            f"ws://{name}:{port}/ws",
            host="127.0.0.1",
            port=port,
            origin=Origin(origin) if origin else None,
            additional_headers=headers,
            proxy=None,
            max_size=1 << 21,
        )
        client = cls(connection)
        await client.send(type="hello", protocol=1, **hello)
        return client

    async def send(self, **frame: Any) -> None:
        await self.connection.send(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(TIMEOUT):
            frame: dict[str, Any] = json.loads(await self.connection.recv())
        self.frames.append(frame)
        return frame

    async def until(self, type: str, **members: Any) -> dict[str, Any]:
        """Read up to a frame of this type with these members."""
        while True:
            frame = await self.receive()
            if frame["type"] == type and members.items() <= frame.items():
                return frame

    def cut(self) -> None:
        """Lose the connection, without a word."""
        self.connection.transport.abort()

    async def close(self) -> None:
        await self.connection.close()
