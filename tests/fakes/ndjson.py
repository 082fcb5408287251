"""A client of the Unix socket that says what it expects: one JSON object per line."""

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

Frame = dict[str, Any]

TIMEOUT = 15.0  # seconds that a frame is waited for; nothing takes that long unless it is broken


class Client:
    """`frames` has everything that came, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: list[Frame] = []

    async def connect(self, limit: int = 4 << 20) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(str(self.path), limit=limit)
        return self

    async def hello(self, session: str = "local", **more: Any) -> Frame:
        await self.send("hello", protocol=1, session=session, **more)
        return await self.until("welcome")

    # -- out -------------------------------------------------------------------------------------

    async def send(self, type: str, **members: Any) -> None:
        await self.raw(json.dumps({"type": type, **members}).encode() + b"\n")

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            pass  # the gateway has closed: what it said is read by `next`

    async def say(self, text: str, id: str | None = None) -> Frame:
        """Send a message and wait for its `ack`."""
        id = id or secrets.token_hex(4)
        await self.send("message", id=id, text=text)
        return await self.until("ack", id=id)

    async def command(self, text: str, id: str | None = None) -> str:
        """Send a command and return its notice."""
        id = id or secrets.token_hex(4)
        await self.send("message", id=id, text=text)
        return str((await self.until("notice", id=id))["text"])

    async def ask(self, text: str, id: str | None = None) -> Frame:
        """Send a message and return the event that closes its turn."""
        ack = await self.say(text, id)
        return await self.closed(ack["id"])

    # -- in --------------------------------------------------------------------------------------

    async def next(self) -> Frame | None:
        """The next frame; None where the gateway has closed the connection."""
        async with asyncio.timeout(TIMEOUT):
            try:
                line = await self._reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        frame: Frame = json.loads(line)
        self.frames.append(frame)
        return frame

    async def until(self, type: str, **members: Any) -> Frame:
        """Read on until a frame has this type and these members."""
        try:
            while (frame := await self.next()) is not None:
                if frame["type"] == type and all(frame.get(key) == value for key, value in members.items()):
                    return frame
                if frame["type"] == "error" and type in ("ack", "notice", "welcome"):
                    raise AssertionError(f"refused: {frame}")
        except TimeoutError:
            raise AssertionError(f"no {type} {members} came: {self.frames[-8:]}") from None
        raise AssertionError(f"closed before {type} {members} came: {self.frames[-8:]}")

    async def event(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The first event that is wanted, perhaps received already."""
        for known in self.events:
            if wanted(known):
                return known
        while True:
            event: Frame = (await self.until("event"))["event"]
            if wanted(event):
                return event

    async def closed(self, id: str) -> Frame:
        """The event that answers a message, perhaps received already."""
        return await self.event(lambda event: id in event.get("answers", ()))

    async def end(self) -> list[Frame]:
        """What still comes until the gateway closes the connection."""
        before = len(self.frames)
        while await self.next() is not None:
            pass
        return self.frames[before:]

    @property
    def events(self) -> list[Frame]:
        return [frame["event"] for frame in self.frames if frame["type"] == "event"]

    @property
    def cursor(self) -> str:
        """What a client would give as `after`."""
        return str([frame["cursor"] for frame in self.frames if frame["type"] == "event"][-1])

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
