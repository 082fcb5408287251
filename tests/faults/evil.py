"""Somebody who sends a running gateway what is nearly valid, by every way in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.fakes.openai_behaviours import Behaviour, Raw
from tests.faults.samples import FRAMES, STREAMS, UPDATES
from tests.faults.spoiling import spoiled, strange
from tests.faults.world import World

_PATIENCE = 2.0  # seconds for an answer to nonsense; there need not be any
_LARGEST = 256 * 1024  # bytes of an update: a message of Telegram's, with the one it replies to, has far less
_HELLO = b'{"type":"hello","protocol":1,"session":"evil"}'
_SECRET = b'{"type":"hello","protocol":1,"session":"' + b"e" * 43 + b'"}'
REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n",
    b"HEAD /chat.js HTTP/1.0\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    b"\x81\x85\x00\x00\x00\x00hello",
    b"POST /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b'POST /telegram HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n\r\n{"a":1}',
    b"GET /%2e%2e/config.yaml HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: null\r\n\r\n",
]


class Evil:
    """`counts` says how much of what was sent."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.dice
        self.counts = {"socket": 0, "websocket": 0, "http": 0, "updates": 0, "streams": 0}
        honest = world.openai.reply

        def reply(body: dict[str, object]) -> Behaviour:
            if "evil" not in json.dumps(body["messages"]):
                return honest(body)
            self.counts["streams"] += 1
            return Raw([spoiled(self.dice.choice(STREAMS), self.dice)])

        world.openai.reply = reply

    async def until(self, over: Callable[[], bool]) -> None:
        """Go on by every way at once."""
        ways: tuple[Callable[[], Awaitable[None]], ...] = (
            self.socket,
            self.websocket,
            self.http,
            self.updates,
            self.streams,
        )

        async def again(way: Callable[[], Awaitable[None]]) -> None:
            while not over():
                await way()
                await asyncio.sleep(0)  # what fails at once must not hold up the others

        await asyncio.gather(*map(again, ways))

    def _frame(self) -> bytes:
        return spoiled(self.dice.choice(FRAMES), self.dice)

    async def socket(self) -> None:
        """One connection of lines."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.world.daemon.socket))
        except OSError:
            return
        hello = _HELLO if self.dice.random() < 0.8 else self._frame()
        lines = [hello, *(self._frame() for _ in range(self.dice.randrange(20)))]
        with suppress(OSError):
            writer.write(b"\n".join(lines) + (b"\n" if self.dice.random() < 0.8 else b""))
            self.counts["socket"] += len(lines)
            await _listened(reader, 0.05)
        writer.transport.abort()

    async def websocket(self) -> None:
        """One connection of messages, texts and bytes."""
        url = f"ws://127.0.0.1:{self.world.daemon.port}/ws"
        with suppress(OSError, WebSocketException, TimeoutError):
            async with asyncio.timeout(_PATIENCE), connect(url, proxy=None, close_timeout=0.1) as connection:
                hello = _SECRET if self.dice.random() < 0.8 else self._frame()
                for data in (hello, *(self._frame() for _ in range(self.dice.randrange(20)))):
                    await connection.send(data, text=self.dice.random() < 0.9)
                    self.counts["websocket"] += 1

    async def http(self) -> None:
        """One connection of requests."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.world.daemon.port)
        except OSError:
            return
        with suppress(OSError):
            for _ in range(self.dice.choice((1, 1, 3))):
                writer.write(spoiled(self.dice.choice(REQUESTS), self.dice))
                self.counts["http"] += 1
            await _listened(reader, 0.05)
        writer.transport.abort()

    async def updates(self) -> None:
        """A few updates, and wait until they are confirmed."""
        for _ in range(self.dice.randrange(1, 20)):
            body = json.loads(self.dice.choice(UPDATES))
            for _ in range(self.dice.choice((1, 1, 2, 4))):
                body = strange(body, self.dice)
            body = body if isinstance(body, dict) else {"message": body}
            body.pop("update_id", None)
            if len(json.dumps(body)) > _LARGEST:
                continue  # fifty times fifty times fifty copies: 24 MB, which take 200 MiB to be read
            self.world.telegram.updates.push_raw(body, self.dice.randrange(5))
            self.counts["updates"] += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while self.world.telegram.updates.pending:  # noqa: ASYNC110 - the server has no event for that
                    await asyncio.sleep(0.02)

    async def streams(self) -> None:
        """A question that is answered with nonsense, and given up soon."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.world.daemon.socket))
        except OSError:
            return
        session = f"evil{self.dice.randrange(20)}"
        with suppress(OSError):
            writer.write(
                json.dumps({"type": "hello", "protocol": 1, "session": session}).encode()
                + b'\n{"type":"message","id":"%x","text":"evil"}\n' % self.dice.getrandbits(60)
            )
            await _listened(reader, self.dice.uniform(0.05, 0.5))
            writer.write(b'{"type":"stop"}\n')
            await _listened(reader, 0.02)
        writer.close()


async def _listened(reader: asyncio.StreamReader, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while await reader.read(1 << 16):
                pass
