"""The HTTP client of the Bot API: what its answers leave behind, and that they have an end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from telegram import Bot
from telegram.error import NetworkError, TelegramError, TimedOut

from channels.telegram import request
from channels.telegram.request import Request
from tests.fakes.garbage import garbage
from tests.fakes.telegram_server import Refuse, Slow, TelegramServer


async def test_an_answer_that_was_read_waits_for_no_collector(server: TelegramServer, bot: Bot) -> None:
    server.user(7)
    with garbage() as left:
        sent = await bot.send_message(7, "Hello")
        server.fail("sendMessage", Refuse(400, "Bad Request: chat not found"))
        with pytest.raises(TelegramError, match="hat not found"):
            await bot.send_message(7, "Hello")
    assert sent.text == "Hello"
    assert not left.of("aiohttp")


@asynccontextmanager
async def endless(block: bytes) -> AsyncIterator[str]:
    """A server whose answers consist of this again and again."""

    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
            while True:
                writer.write(block)
                await writer.drain()
                await asyncio.sleep(0.001)
        except ConnectionError:
            writer.transport.abort()
            left.set()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await left.wait()  # its one client has gone


async def test_an_answer_that_comes_byte_by_byte_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request, "_LONGEST", 0.1)
    async with endless(b" ") as url, Request() as client:
        with pytest.raises(TimedOut):
            await client.post(url)


async def test_an_answer_without_end_is_read_no_further_than_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request, "_LARGEST", 100_000)
    async with endless(bytes(10_000)) as url, Request() as client:
        with pytest.raises(NetworkError, match="more than 100000 bytes"):
            await client.post(url)


async def test_calls_broken_off_at_any_moment_cost_no_connection(server: TelegramServer) -> None:
    url = f"{server.api_url}/bot{server.token}/getMe"
    async with Request(connections=4) as client:
        for ticks in [*range(50)] * 4:
            call = asyncio.create_task(client.post(url))
            for _ in range(ticks):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})
        await asyncio.gather(*(client.post(url, pool_timeout=5) for _ in range(4)))
        assert len(server.connections) <= 4


async def test_after_a_rush_one_connection_is_used_on_and_the_others_may_go(server: TelegramServer) -> None:
    url = f"{server.api_url}/bot{server.token}/getMe"
    server.fail("getMe", Slow(0.05), times=8)
    async with Request(connections=8) as client:
        await asyncio.gather(*(client.post(url) for _ in range(8)))
        for _ in range(8):
            await client.post(url)
    clients = [call.client for call in server.calls]
    assert len(set(clients[:8])) == 8
    assert len(set(clients[8:])) == 1


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
async def test_the_proxy_of_the_environment_is_asked(
    server: TelegramServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, server.api_url.replace("//", "//ann:secret@"))
    url = f"http://telegram.invalid/bot{server.token}/getMe"
    async with Request() as client:
        await client.post(url)
        monkeypatch.setenv("no_proxy", "telegram.invalid")
        with pytest.raises(NetworkError, match=r"ClientConnector\w*Error"):
            await client.post(url)
    assert [call.method for call in server.calls] == ["getMe"]
