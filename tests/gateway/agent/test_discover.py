import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.agent.discover import discover, served_model
from gateway.agent.endpoint import Endpoint
from tests.fakes.openai_server import OpenAIServer


@asynccontextmanager
async def anything(answer: bytes) -> AsyncIterator[str]:
    """Some program that answers every request with the same bytes; none: it never answers."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if answer:
                writer.write(answer)
                await writer.drain()
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def http(body: str, type: str = "application/json", status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {type}\r\n{more}Connection: close\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


NOT_IT: dict[str, bytes] = {
    "html": http("<!DOCTYPE html><title>Router</title>", "text/html"),
    "html called json": http("<html></html>"),
    "another API": http('{"status": "ok"}'),
    "no models": http('{"object": "list", "data": []}'),
    "data is no list": http('{"data": {"id": "x"}}'),
    "data holds no objects": http('{"data": [1, null, "x"]}'),
    "ids are no texts": http('{"data": [{"id": 5}, {"id": ""}, {}]}'),
    "a list": http('[{"id": "x"}]'),
    "null": http("null"),
    "a text": http('"models"'),
    "cut json": http('{"data": [{"id": "x"'),
    "not found": http('{"error": "no"}', status="404 Not Found"),
    "asks for a key": http('{"error": "no"}', status="401 Unauthorized"),
    "broken": http("oops", status="500 Internal Server Error"),
    "elsewhere": http("", status="302 Found", more="Location: http://127.0.0.1:9/\r\n"),
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"\r\n",
}


@pytest.mark.parametrize("name", NOT_IT)
async def test_only_a_proper_answer_counts(name: str) -> None:
    async with anything(NOT_IT[name]) as url:
        assert await discover([url]) is None


async def test_a_proper_answer() -> None:
    async with anything(http('{"object": "list", "data": [{"id": "llama3:8b"}]}')) as url:
        assert await discover([url]) == Endpoint(url, "llama3:8b")


async def test_a_list_is_read_no_further_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = '{"data": [{"id": "llama3:8b"}]}'
    monkeypatch.setattr("gateway.agent.discover._LONGEST", 1000)
    async with anything(http(listed + " " * (1000 - len(listed)))) as url:
        assert await served_model(url) == "llama3:8b"
    async with anything(http(listed + " " * 1000)) as url:
        assert await served_model(url) is None


async def test_a_list_that_is_compressed_unasked_is_none() -> None:
    much = gzip.compress(b'{"data": [{"id": "llama3:8b"}]}' + b" " * 1_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(much)}\r\n\r\n"
    async with anything(head.encode() + much) as url:
        assert await served_model(url) is None


async def test_silence_is_not_waited_for() -> None:
    async with anything(b"") as silent, OpenAIServer() as server, asyncio.timeout(5):
        assert await discover([silent, server.base_url], timeout=0.2) == Endpoint(server.base_url, "fake-1")


async def test_the_first_in_order_wins() -> None:
    async with OpenAIServer(models=["a"]) as one, OpenAIServer(models=["b"]) as two:
        assert await discover([two.base_url, one.base_url]) == Endpoint(two.base_url, "b")


async def test_nobody_is_there() -> None:
    async with OpenAIServer() as gone:
        url = gone.base_url
    assert await discover([url]) is None


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        (["nomic-embed-text:latest", "llama3:8b"], "llama3:8b"),
        (["text-embedding-3", "bge-m3", "whisper-1", "qwen3:4b", "llama3"], "qwen3:4b"),
        (["nomic-embed-text"], "nomic-embed-text"),
    ],
)
async def test_a_model_for_chatting_is_chosen(models: list[str], chosen: str) -> None:
    async with OpenAIServer(models=models) as server:
        assert await served_model(server.base_url) == chosen


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    heard: list[bytes] = []

    async with OpenAIServer() as server:
        assert await discover([server.base_url]) is not None

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        await discover([f"http://127.0.0.1:{port}/v1"])
    assert b"not-for-you" not in heard[0]
