"""The client path against two servers that are not ours: LiteLLM's proxy, and LLMock, which judges us."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.agent.endpoint import Endpoint, Limits
from gateway.agent.model import Model
from gateway.agent.model_errors import (
    BadRequest,
    ContextTooLong,
    ModelError,
    ModelMisconfigured,
    ModelServerFault,
    RateLimited,
)
from gateway.agent.reply import Asked, Finish, Text
from tests.conftest import Daemons
from tests.fakes.foreign_servers import foreign_server, free_port

pytestmark = pytest.mark.xdist_group("foreign servers")  # they are installed once, which takes its time
KEY = "sk-test-0123456789abcdef"
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_current_datetime",
        "description": "Get the current date and time.",
        "parameters": {"type": "object", "properties": {"timezone": {"type": "string"}}},
    },
}


@asynccontextmanager
async def connected(base_url: str, name: str, key: str = KEY, **limits: Any) -> AsyncIterator[Model]:
    model = Model(Endpoint(base_url, name, key, Limits(**{"after_finish": 20.0} | limits)))
    yield model
    await model.close()


async def ask(model: Model, text: str, *tools: dict[str, Any]) -> tuple[list[str], Finish]:
    """The pieces of the text, and the end."""
    async with asyncio.timeout(60):
        pieces = [piece async for piece in model.ask([{"role": "user", "content": text}], list(tools))]
    assert isinstance(pieces[0], Asked)
    assert isinstance(pieces[-1], Finish)
    return [piece.text for piece in pieces if isinstance(piece, Text)], pieces[-1]


async def refused(base_url: str, name: str, key: str = KEY) -> ModelError:
    async with connected(base_url, name, key, tries=1) as model:
        with pytest.raises(ModelError) as caught:
            await ask(model, f"Hello {secrets.token_hex(4)}")  # the same twice would be a retry to LLMock
    assert key not in str(caught.value)
    return caught.value


def counted(finish: Finish) -> bool:
    """Whether the server itself said what it took."""
    usage = finish.usage
    return usage is not None and usage.input > 0 and usage.output > 0 and not usage.estimated


# -- LiteLLM ---------------------------------------------------------------------------------------


def _mocked(name: str, **mock: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": "openai/gpt-4o", "api_key": "none", **mock}}


PROXY = {
    "model_list": [
        _mocked("talks", mock_response="Grüße from a proxy that is not ours."),
        _mocked("busy", mock_response="litellm.RateLimitError"),
        _mocked("long", mock_response="litellm.ContextWindowExceededError"),
        _mocked("down", mock_response="litellm.InternalServerError"),
    ],
    "general_settings": {"master_key": KEY},
}


async def test_the_litellm_proxy(folder: Path, daemons: Daemons) -> None:
    config = folder / "proxy.yaml"
    config.write_text(json.dumps(PROXY))
    port = free_port()
    arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(folder)}
    async with foreign_server("litellm", *arguments, **quiet):
        url = f"http://127.0.0.1:{port}/v1"
        async with connected(url, "talks") as model:
            pieces, finish = await ask(model, "Hello")
            assert "".join(pieces) == "Grüße from a proxy that is not ours."
            assert finish.reason == "stop"
            assert counted(finish)
            assert (await ask(model, "Hello", CLOCK))[1].reason == "stop"
        assert type(await refused(url, "busy")) is RateLimited
        assert type(await refused(url, "long")) is ContextTooLong
        assert type(await refused(url, "down")) is ModelServerFault
        assert type(await refused(url, "nothing")) is ModelMisconfigured
        assert type(await refused(url, "talks", "sk-wrong-0123456789")) is ModelMisconfigured
        models = {
            name: {"base_url": url, "name": name, "api_key": {"env": "KEY"}} for name in ("busy", "talks")
        }
        agents = {"main": {"model": "busy", "fallback": ["talks"]}}
        daemon = await daemons(config={"models": models, "agents": agents}, KEY=KEY).start()
        client = await daemon.client()
        answer = await client.ask("Hello?")
        assert answer["content"] == "Grüße from a proxy that is not ours."
        assert answer["usage"]["output"] > 0
        await daemon.logged("another model is asked", model="busy", next="talks")


# -- LLMock ----------------------------------------------------------------------------------------


class LLMock:
    """Its own verbs: what it is to do next, and what it thinks of its client."""

    def __init__(self, port: int, http: ClientSession) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._root = f"http://127.0.0.1:{port}/_llmock"
        self._http = http

    async def next(self, **behaviour: Any) -> None:
        async with self._http.post(f"{self._root}/scenario", json={"behaviors": [behaviour]}) as answer:
            assert answer.status < 300, await answer.text()

    async def verdict(self) -> dict[str, Any]:
        async with self._http.get(f"{self._root}/verdict") as answer:
            found: dict[str, Any] = await answer.json()
            return found


@asynccontextmanager
async def llmock(*more: str) -> AsyncIterator[LLMock]:
    port = free_port()
    async with (
        foreign_server("llmock", "serve", "--port", str(port), "--response-style", "echo", *more),
        ClientSession() as http,
    ):
        yield LLMock(port, http)


REFUSALS = [
    (401, ModelMisconfigured),
    (403, ModelMisconfigured),
    (404, ModelMisconfigured),
    (400, BadRequest),
]


async def test_llmock() -> None:
    async with llmock("--context-window", "3000") as server, connected(server.base_url, "gpt-4o") as model:
        pieces, finish = await ask(model, "Hello there, how are you today?")
        assert "Hello there, how are you today?" in "".join(pieces)
        assert finish.reason == "stop"
        assert counted(finish)
        _, finish = await ask(model, "What time is it?", CLOCK)
        assert [call.name for call in finish.calls] == ["get_current_datetime"]
        assert isinstance(json.loads(finish.calls[0].arguments), dict)
        for status, kind in REFUSALS:
            await server.next(type="fail", status=status)
            assert type(await refused(server.base_url, "gpt-4o")) is kind
        with pytest.raises(ContextTooLong):
            await ask(model, "word " * 4000)
        await server.next(type="fail", status=429, retry_after=1, times=2)
        assert (await ask(model, "And now?"))[1].reason == "stop"
        await server.next(type="fail", status=503)
        assert (await ask(model, "And again?"))[1].reason == "stop"
        verdict = await server.verdict()  # before the cuts: it cannot see what we say of them
        assert (verdict["passed"], verdict["faults_injected"]) == (True, 8), verdict
        for fault in ("truncate", "disconnect", "malformed"):
            await server.next(type="stream_fault", kind=fault, after_chunks=3)
            pieces, finish = await ask(model, f"A text that is long enough to be cut: {fault}")
            assert "".join(pieces)
            assert finish.reason == "cut"


async def test_llmock_behind_a_daemon(daemons: Daemons) -> None:
    async with llmock() as server:
        model = {"base_url": server.base_url, "name": "gpt-4o", "api_key": {"env": "KEY"}}
        daemon = await daemons(config={"model": model}, KEY=KEY).start()
        client = await daemon.client()
        await server.next(
            type="reply",
            tool_calls=[{"name": "get_current_datetime", "arguments": {"timezone": "Asia/Tokyo"}}],
        )
        answer = await client.ask("What time is it in Tokyo?")
        events = daemon.events("agent:main:cli:local")
        [call] = [event for event in events if event["role"] == "tool_call"]
        [result] = [event for event in events if event["role"] == "tool_result"]
        assert call["args"] == {"timezone": "Asia/Tokyo"}
        assert (result["ok"], "JST" in result["result"]) == (True, True)
        assert answer["finish"] == "stop"
        assert answer["content"]
        assert answer["usage"]["input"] > 0
