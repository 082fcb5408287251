"""The built-in model for a machine without a key.

It stands behind the official client as a transport: it takes the same request as a real server, and streams
the same events. Nothing else in the gateway knows that there is a demo.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from gateway.agent.demo_replies import Said, Wanted, respond
from gateway.agent.demo_texts import DEMO_NOTICE
from gateway.agent.endpoint import Endpoint
from gateway.agent.model import Model

__all__ = ["DEMO_NOTICE", "demo_model"]

_NAME = "demo"


def demo_model(delay: float = 0.015) -> Model:
    """The demo as a model like any other; `delay` is the time in seconds before each word."""
    # ".invalid" never resolves (RFC 6761): should the transport be lost, nothing is sent anywhere.
    endpoint = Endpoint(base_url="http://demo.invalid/v1", name=_NAME)
    return Model(endpoint, http_client=httpx2.AsyncClient(transport=_DemoTransport(delay)))


class _DemoTransport(httpx2.AsyncBaseTransport):
    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        asked = json.loads(await request.aread())
        reply = respond(asked["messages"], asked.get("tools") or [])
        stream = _Events(_chunks(reply, asked["messages"]), self._delay)
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=stream)


class _Events(httpx2.AsyncByteStream):
    def __init__(self, chunks: list[dict[str, Any]], delay: float) -> None:
        self._chunks = chunks
        self._delay = delay

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if self._delay:
                await asyncio.sleep(self._delay)
            yield b"data: %b\n\n" % json.dumps(chunk).encode()
        yield b"data: [DONE]\n\n"


def _chunks(reply: Said | Wanted, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(reply, Wanted):
        function = {"name": reply.tool, "arguments": json.dumps(reply.arguments)}
        call = {"index": 0, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
        chunks, reason, words = [_chunk({"tool_calls": [call]})], "tool_calls", 1
    else:
        pieces = re.findall(r"\s*\S+\s*$|\s*\S+", reply.text)
        chunks, reason, words = [_chunk({"content": piece}) for piece in pieces], "stop", len(pieces)
    read = sum(len(str(message.get("content") or "").split()) for message in messages)
    usage = {"prompt_tokens": read, "completion_tokens": words, "total_tokens": read + words}
    return [*chunks, _chunk({}, reason), {"model": _NAME, "choices": [], "usage": usage}]


def _chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"object": "chat.completion.chunk", "model": _NAME, "choices": [choice]}
