"""One client's WebSocket: messages, pings, and how it ends, on real sockets."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.frames import Close

from channels import wire
from channels.errors import Refused
from channels.webchat import websocket
from channels.webchat.websocket import WebSocket
from tests.faults.crowd import CLOSE, CONTINUATION, PING, PONG, TEXT, frame

BINARY = 2
TIMEOUT = 15.0


class Peer:
    """The other end: bytes in, bytes out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def says_for_ever(self, data: bytes) -> None:
        async with asyncio.timeout(TIMEOUT):
            while True:
                self.writer.write(data)
                await self.writer.drain()

    async def hears(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload."""
        async with asyncio.timeout(TIMEOUT):
            first, length = await self.reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2))
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8))
            return first & 15, await self.reader.readexactly(length)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[WebSocket, Peer]]:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[WebSocket] = loop.create_future()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            client = WebSocket(transport)
            transport.set_protocol(client)
            made.set_result(client)

    server = await loop.create_server(Accepting, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    client = await made
    try:
        yield client, Peer(reader, writer)
    finally:
        writer.transport.abort()
        async with asyncio.timeout(TIMEOUT):
            await client.close(1000)
        server.close()


async def received(client: WebSocket) -> bytes | None:
    async with asyncio.timeout(TIMEOUT):
        return await client.receive()


async def everything(client: WebSocket) -> None:
    """Receive until there is nothing more, or what was said is refused."""
    while await received(client) is not None:
        pass


def said(code: int) -> tuple[int, bytes]:
    return CLOSE, Close(code, "").serialize()


async def test_messages_whole_and_in_parts_come_in_order() -> None:
    async with connected() as (client, peer):
        parts = [frame(TEXT, b"tw", final=False), frame(PING, b"?"), frame(CONTINUATION, b"o")]
        for part in [frame(TEXT, b"one"), *parts, frame(TEXT, "drei €".encode())]:
            for byte in part:
                peer.say(bytes([byte]))
                await peer.writer.drain()
        assert [await received(client) for _ in range(3)] == [b"one", b"two", "drei €".encode()]
        assert await peer.hears() == (10, b"?")


async def test_several_frames_are_sent_in_order() -> None:
    async with connected() as (client, peer):
        await client.send([b"a", b"b" * 300, b"c" * 70_000])
        assert [await peer.hears() for _ in range(3)] == [(1, b"a"), (1, b"b" * 300), (1, b"c" * 70_000)]


@pytest.mark.parametrize(
    ("size", "code"), [(5, "bad_utf8"), (wire.MAX_CLIENT_FRAME + 1, "frame_too_large")], ids=str
)
async def test_a_binary_message_is_refused(size: int, code: str) -> None:
    async with connected() as (client, peer):
        peer.say(frame(BINARY, bytes(size)))
        with pytest.raises(Refused) as refused:
            await received(client)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(CONTINUATION, b"of what?"), 1002),
        (frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), 1002),
        (b"\x81\x01a", 1002),  # not masked
        (frame(11, b""), 1002),
        (frame(TEXT, b"", size=64 << 20), 1009),
    ],
    ids=["continuation", "text in text", "no mask", "reserved", "huge"],
)
async def test_what_is_no_protocol_ends_it(broken: bytes, code: int) -> None:
    async with connected() as (client, peer):
        peer.say(broken)
        assert await received(client) is None
        opcode, payload = await peer.hears()
        assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, code)


async def test_what_was_said_before_the_goodbye_is_still_received() -> None:
    async with connected() as (client, peer):
        peer.say(frame(TEXT, b"one"), frame(TEXT, b"two"), frame(CLOSE, Close(1000, "").serialize()))
        assert await peer.hears() == said(1000)
        assert [await received(client) for _ in range(3)] == [b"one", b"two", None]
        await client.send([b"nobody reads this"])  # no error: there may be more to carry out
        closing = asyncio.create_task(client.close(1000))
        assert await peer.reader.read() == b""
        peer.writer.close()
        async with asyncio.timeout(TIMEOUT):
            await closing


async def test_a_client_that_vanishes_is_a_connection_error() -> None:
    async with connected() as (client, peer):
        peer.writer.transport.abort()
        assert await received(client) is None
        with pytest.raises(ConnectionError):
            await client.send([b"a"])
        await client.close(1006)


async def test_a_goodbye_waits_for_the_clients() -> None:
    async with connected() as (client, peer):
        closing = asyncio.create_task(client.close(1013))
        assert await peer.hears() == said(1013)
        assert not closing.done()
        peer.say(frame(TEXT, b"too late"), frame(CLOSE, Close(1013, "").serialize()))
        assert await peer.reader.read() == b""  # at once, not after the second that it would wait
        peer.writer.close()
        async with asyncio.timeout(TIMEOUT):
            await closing


async def test_a_client_that_does_not_read_holds_its_sender_up_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "_LAST_WORDS", 0.01)
    async with connected() as (client, _):
        sending = asyncio.create_task(client.send([bytes(1 << 20)] * 16))
        await asyncio.sleep(0)
        assert not sending.done()
        async with asyncio.timeout(TIMEOUT):
            await client.close(1000)
        with pytest.raises(ConnectionError):
            await sending


async def test_a_client_that_says_much_waits_until_it_was_heard() -> None:
    async with connected() as (client, peer):
        peer.say(*[frame(TEXT, bytes([number]) * 60_000) for number in range(200)])
        for number in range(200):
            assert await received(client) == bytes([number]) * 60_000
            assert client._ahead < 4 * websocket._AHEAD + 60_000


@pytest.mark.parametrize(
    "flood",
    [
        [frame(TEXT, b"a", final=False), *[frame(CONTINUATION, b"", final=False)] * 40_000],
        [frame(TEXT, b"")] * 40_000,
        [frame(PING, b"")] * 40_000,
    ],
    ids=["parts", "messages", "pings"],
)
async def test_a_flood_of_empty_frames_is_ended_before_it_costs_anything(flood: list[bytes]) -> None:
    async with connected() as (client, peer):
        peer.say(*flood)
        with pytest.raises(Refused) as refused:
            await everything(client)
        assert refused.value.code == "rate_limited"
        assert client._frames < 2 * websocket._FRAMES + websocket._PIECE / 6
        assert not client._half
        await client.close(1008)


async def test_a_client_that_takes_what_it_is_sent_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (client, peer):
        sending = asyncio.create_task(client.send([b"x" * 1_000_000] * 20))
        await asyncio.sleep(0)
        waits = client._transport.get_write_buffer_size()
        client.ping()
        async with asyncio.timeout(TIMEOUT):
            while client._transport.get_write_buffer_size() >= waits:
                await peer.reader.read(65536)
        assert not client._heard  # its pong stands behind all that
        client.check()
        assert not client.lost
        assert not client._transport.is_closing()
        client.ping()
        client.check()  # nothing was taken since
        assert client._transport.is_closing()
        with pytest.raises(ConnectionError):
            await sending


async def test_many_frames_are_no_flood_where_they_are_taken_up_in_between() -> None:
    async with connected() as (client, peer):
        parts = [frame(CONTINUATION, b"x" * 500, final=False)] * 898
        for _ in range(5):
            peer.say(frame(TEXT, b"x" * 500, final=False), *parts, frame(CONTINUATION, b""))
            assert await received(client) == b"x" * 500 * 899
        for _ in range(3):
            peer.say(*[frame(PING, b"")] * 900)
            for _ in range(900):
                assert await peer.hears() == (10, b"")
            client.ping()
            assert await peer.hears() == (PING, b"")


async def test_a_message_in_many_frames_takes_no_more_than_what_it_says() -> None:
    async with connected() as (client, peer):
        tracemalloc.start()
        try:
            peer.say(frame(TEXT, b"{", final=False))
            for _ in range(20):
                peer.say(frame(CONTINUATION, b"", final=False) * 900, frame(PING, b""))
                assert await peer.hears() == (PONG, b"")
                client.ping()  # as every twenty seconds
                assert await peer.hears() == (PING, b"")
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 500_000
        peer.say(frame(CONTINUATION, b"}"))
        assert await client.receive() == b"{}"


async def test_who_pings_and_does_not_read_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "_FRAMES", 1_000_000_000)
    async with connected() as (client, peer):
        with pytest.raises(ConnectionError):
            await peer.says_for_ever(frame(PING, b"x" * 125) * 1000)
        assert await received(client) is None


async def test_a_client_that_is_silent_after_a_ping_is_let_go_of() -> None:
    async with connected() as (client, peer):
        for _ in range(3):
            client.ping()
            assert await peer.hears() == (PING, b"")
            peer.say(frame(10, b""), frame(TEXT, b"here"))
            assert await received(client) == b"here"
            client.check()
        assert not client.lost
        client.ping()
        client.check()
        assert await received(client) is None
        assert client.lost
        with pytest.raises(ConnectionError):
            await client.send([b"a"])
