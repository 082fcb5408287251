"""The one HTTP port: health, on a real socket."""

import asyncio
import errno
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import http
from gateway.health import Health
from gateway.http import HttpChannel


class _Storing:
    fault: str | None = None


class _Failing:
    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self.remarks: dict[str, str] = {}


HEALTHY = Health(_Storing(), _Failing(), _Failing())


@asynccontextmanager
async def serving(channel: HttpChannel) -> AsyncIterator[int]:
    ready = asyncio.Event()
    task = asyncio.create_task(channel.run(ready.set))
    try:
        async with asyncio.timeout(10):
            await ready.wait()
        yield channel.port
    finally:
        task.cancel()
        await asyncio.wait({task})


async def get(port: int, path: str) -> tuple[int, dict[str, str], Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET %b HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, json.loads(body)


async def test_health_is_told_with_its_reasons() -> None:
    store, channels = _Storing(), _Failing()
    async with serving(HttpChannel("127.0.0.1", 0, Health(store, channels, _Failing()))) as port:
        for path in ("/healthz", "/readyz"):
            status, headers, body = await get(port, path)
            assert (status, body) == (200, {"ok": True, "why": {}})
            assert headers["cache-control"] == "no-store"
        channels.faults["telegram"] = "no route"
        assert (await get(port, "/healthz"))[0] == 200
        status, _, body = await get(port, "/readyz")
        assert (status, body) == (503, {"ok": False, "why": {"channel telegram": "no route"}})
        store.fault = "No space left on device"
        status, _, body = await get(port, "/healthz")
        assert (status, body["why"]) == (503, {"store": "No space left on device"})


async def test_a_port_that_is_taken_is_noticed_when_binding() -> None:
    health = Health(_Storing(), _Failing(), _Failing())
    async with serving(HttpChannel("127.0.0.1", 0, health)) as port:
        with pytest.raises(OSError) as refused:
            HttpChannel("127.0.0.1", port, health).bind()
        assert refused.value.errno == errno.EADDRINUSE


async def test_it_is_run_again_on_the_same_port() -> None:
    channel = HttpChannel("127.0.0.1", 0, Health(_Storing(), _Failing(), _Failing()))
    channel.bind()
    async with serving(channel) as first:
        assert (await get(first, "/healthz"))[0] == 200
    async with serving(channel) as second:
        assert second == first
        assert (await get(second, "/healthz"))[0] == 200


async def test_what_is_no_http_is_refused_and_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    channel = HttpChannel("127.0.0.1", 0, Health(_Storing(), _Failing(), _Failing()))
    caplog.set_level(logging.INFO)
    async with serving(channel) as port:
        for nonsense in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET / HTTP/1[1\r\n\r\n",
            b"GET / HTTP/1.1\r\na b\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense + b"\r\n\r\n")
            async with asyncio.timeout(10):
                assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
            writer.close()
            await writer.wait_closed()
    assert caplog.records == []


async def test_every_answer_says_how_it_is_to_be_taken() -> None:
    async def receive(secret: str | None, body: bytes) -> int:
        raise RuntimeError(body.decode())

    channel = HttpChannel("127.0.0.1", 0, Health(_Storing(), _Failing(), _Failing()))
    channel.hook("/telegram/there", receive)
    head = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/html\r\n"
    large = b"Content-Length: 2000000\r\n\r\n" + bytes(2_000_000)
    wanted = {
        b"GET /healthz" + head + b"\r\n": 200,
        b"GET /nothing" + head + b"\r\n": 404,
        b"POST /telegram/other" + head + b"\r\n": 404,
        b"POST /healthz" + head + b"\r\n": 405,
        b"POST /telegram/there" + head + large: 413,
        b"GET /healthz" + head + b"Expect: a miracle\r\n\r\n": 417,
        b"POST /telegram/there" + head + b"\r\n": 500,
        b"GET / HTTP/1[1\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\na b\r\n\r\n": 400,
        b"GET /" + b"x" * 9000 + head + b"\r\n": 400,
    }
    async with serving(channel) as port:
        for request, status in wanted.items():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.close()
            await asyncio.wait({asyncio.create_task(writer.wait_closed())})
            assert answer.split()[1] == str(status), request[:40]
            assert "\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n" in answer
            assert "\r\nX-Content-Type-Options: nosniff\r\n" in answer
            assert [line for line in answer.split("\r\n") if line.startswith("Server:")] == ["Server: lunar"]


# -- who says nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_on_which_no_request_comes_is_closed(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens connections and says nothing would use up every descriptor."""
    monkeypatch.setattr(http, "_IDLE", 0.2)
    async with serving(HttpChannel("127.0.0.1", 0, HEALTHY)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_a_connection_is_closed_where_no_further_request_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_IDLE", 0.2)
    async with serving(HttpChannel("127.0.0.1", 0, HEALTHY)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.read(), 20)
        writer.close()


async def test_a_connection_whose_answers_nobody_reads_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_UNREAD", 1.0)
    async with serving(HttpChannel("127.0.0.1", 0, HEALTHY)) as port:
        # With this limit it stops to read.
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)

        async def ask() -> None:
            while True:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask(), 30)
        writer.transport.abort()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 9\r\n\r\n{", b"408"),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"408"),
        (b"Transfer-Encoding: chunked\r\n\r\nno size\r\n", b"400"),
        (b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nno gzip..", b"400"),
        (b"Content-Length: 9000000\r\n\r\n" + b"x" * 2_000_000, b"413"),
    ],
    ids=["begun", "chunked", "no chunk", "no gzip", "too much"],
)
async def test_a_body_that_does_not_come(
    head: bytes, status: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http, "_BODY", 0.2)
    channel = HttpChannel("127.0.0.1", 0, HEALTHY)

    async def receive(secret: str | None, body: bytes) -> int:
        raise AssertionError("half of it")

    channel.hook("/telegram/x", receive)
    async with serving(channel) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /telegram/x HTTP/1.1\r\nHost: x\r\n" + head)
        assert (await asyncio.wait_for(reader.readline(), 20)).split()[1] == status
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_that_goes_in_the_middle_of_its_body_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(HttpChannel("127.0.0.1", 0, HEALTHY)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /telegram/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        )
        await reader.readline()  # it is being waited for
        writer.transport.abort()
        await get(port, "/healthz")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
