"""Transcripts with broken tool calls: the next message is answered as always, and the file stays as it is."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from channels.base import Done
from gateway.agent.endpoint import Endpoint
from gateway.agent.model import Model
from gateway.agent.runner import AgentRunner
from gateway.agent.tools import Toolbox
from gateway.lane import Lane
from gateway.rules import Rules
from session.ids import SessionId
from session.store import Store
from tests.fakes.openai_server import Asked, Behaviour, OpenAIServer, Say, Status

SESSION = SessionId("agent:main:cli:local")


def call(id: str | None, name: str = "look", args: Any = None, **more: Any) -> dict[str, Any]:
    named = {"call_id": id} if id is not None else {}
    return {"role": "tool_call", "name": name, "args": {} if args is None else args, **named, **more}


def result(id: str | None, text: Any = "seen", **more: Any) -> dict[str, Any]:
    return {"role": "tool_result", "name": "look", "result": text, **({"call_id": id} if id else {}), **more}


def ours(*steps: dict[str, Any], closed: bool = True) -> list[dict[str, Any]]:
    """A turn of ours with these steps."""
    begun: list[dict[str, Any]] = [
        {"role": "user", "content": "Look.", "id": "m1"},
        {"role": "system", "name": "started", "turn": "t1", "messages": ["m1"], "attempt": 1},
        *({**step, "turn": "t1"} for step in steps),
    ]
    end = {"role": "assistant", "content": "Done.", "turn": "t1", "answers": ["m1"], "finish": "stop"}
    return [*begun, end] if closed else begun


ASKED = {"role": "user", "content": "Look."}
SAID = {"role": "assistant", "content": "Well."}
BROKEN: dict[str, list[dict[str, Any]]] = {
    "an orphan call": [ASKED, call("c1"), SAID],
    "an orphan call at the end": [ASKED, call("c1")],
    "an orphan result": [ASKED, result("c9"), SAID],
    "nothing but a result": [result("c1")],
    "a result before its call": [ASKED, result("c1"), call("c1"), SAID],
    "a result of another name's call": [ASKED, call("c1"), result("c2"), SAID],
    "a duplicate id in two calls": [ASKED, call("c1"), call("c1", args={"a": 1}), result("c1"), SAID],
    "a duplicate result": [ASKED, call("c1"), result("c1"), result("c1", "again"), SAID],
    "no ids at all": [ASKED, call(None), result(None), SAID],
    "an unknown tool": [ASKED, call("c1", "no such tool/ü"), result("c1"), SAID],
    "a tool without a name": [ASKED, call("c1", ""), result("c1"), SAID],
    "arguments that are none": [ASKED, call("c1", args="{not json"), result("c1", None), SAID],
    "a result that is no text": [ASKED, call("c1"), result("c1", {"deep": [1, None]}), SAID],
    "text between call and result": [ASKED, call("c1"), SAID, result("c1"), SAID],
    "a crash between the call and its result": ours(call("c1"), closed=False),
    "a crash between two calls": ours(call("c1"), call("c2"), result("c1"), closed=False),
    "a crash before the call's turn was begun": [ASKED | {"id": "m1"}, call("c1", turn="t1")],
    "a closed turn that lacks a result": ours(call("c1")),
    "a closed turn with a result too many": ours(call("c1"), result("c1"), result("c1")),
    "a turn that was never closed": [ASKED, call("c1", turn="x"), result("c1", turn="x")],
    "calls of two turns with one id": [*ours(call("c1"), result("c1")), ASKED, call("c1"), SAID],
}


def strict(body: dict[str, Any]) -> Behaviour:
    """What every provider refuses."""
    waiting: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting or not isinstance(message["content"], str):
                return Status(400)
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return Status(400)
        for wanted in message.get("tool_calls", ()):
            name, arguments = wanted["function"]["name"], wanted["function"]["arguments"]
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) or not isinstance(json.loads(arguments), dict):
                return Status(400)
            if wanted["id"] in waiting:
                return Status(400)
            waiting.append(wanted["id"])
        if not message.get("content") and not message.get("tool_calls"):
            return Status(400)
    return Status(400) if waiting else Say("An answer.")


class Models:
    def __init__(self, model: Model) -> None:
        self.model = model
        model.context, model.vision = None, False  # type: ignore[attr-defined] # as a chain has them

    async def get(self, name: str | None, session: SessionId) -> Any:
        return self.model


@pytest.mark.parametrize("lines", BROKEN.values(), ids=BROKEN.keys())
async def test_the_next_message_is_answered(folder: Path, lines: list[dict[str, Any]]) -> None:
    path = folder / "sessions" / "agent-main-cli-local.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    before = path.read_bytes()
    async with OpenAIServer(reply=strict) as server:
        model = Model(Endpoint(base_url=server.base_url, name="m", api_key=None))
        store = Store(folder)
        store.start()
        lane = Lane(
            SESSION, store, AgentRunner("", Models(model), Toolbox([])), asyncio.Semaphore(1), Rules()
        )
        await lane.open()
        news: asyncio.Queue[Any] = asyncio.Queue()
        lane.feed.watch(news.put_nowait, None)
        lane.resume()
        await lane.submit("next", "And now?")
        async with asyncio.timeout(20):
            while lane.conversation.open:
                while not isinstance(update := await news.get(), Done):
                    pass
                assert update.outcome == "completed"
        assert _asks(server.requests[-1]).endswith("And now?")
        await lane.close()
        await model.close()
        await store.close()
    after = path.read_bytes()
    assert after.startswith(before)
    added = [json.loads(line) for line in after[len(before) :].splitlines()]
    assert [event["content"] for event in added if "answers" in event][-1] == "An answer."
    assert all(event["content"] == "An answer." for event in added if "answers" in event)


def _asks(request: Asked) -> str:
    return str(request.body["messages"][-1]["content"])
