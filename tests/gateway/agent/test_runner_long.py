"""A conversation far longer than the model's context, against a server that counts and refuses."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from channels.base import Done, Stored, Update
from gateway.agent.endpoint import Endpoint
from gateway.agent.model import Model
from gateway.agent.recap import PROMPT
from gateway.agent.runner import AgentRunner
from gateway.agent.tools import Toolbox
from gateway.lane import Lane
from gateway.rules import Rules
from session.events import Assistant
from session.ids import SessionId
from session.store import Store
from tests.fakes.openai_server import Behaviour, Events, OpenAIServer, Status, chunk

SESSION = SessionId("agent:main:cli:local")
FACT = re.compile(r"My \w+ is called \w+\.")
TURNS = 1_000


class Server:
    """Remembers nothing but what a request holds. `context` is in tokens of three bytes."""

    def __init__(self, context: int) -> None:
        self.context = context
        self.sizes: list[int] = []  # of the requests that were taken
        self.refused = 0
        self.summaries = 0

    def reply(self, body: dict[str, Any]) -> Behaviour:
        size = len(json.dumps(body["messages"], ensure_ascii=False).encode()) // 3
        if size > self.context:
            self.refused += 1
            error = {"message": "maximum context length exceeded", "code": "context_length_exceeded"}
            return Status(400, {"error": error})
        self.sizes.append(size)
        text = "\n".join(message["content"] for message in body["messages"])
        if body["messages"][0]["content"] == PROMPT:
            self.summaries += 1
            return said(" ".join(dict.fromkeys(FACT.findall(text))) or "Small talk.", size)
        question = body["messages"][-1]["content"]
        if asked := re.fullmatch(r"What is my (\w+) called\?", question):
            found = re.findall(rf"My {asked[1]} is called (\w+)\.", text)
            return said(found[-1] if found else "I do not know.", size)
        return said("Noted. " + "la " * 60, size)


def said(text: str, size: int) -> Events:
    usage = {"prompt_tokens": size, "completion_tokens": 5, "total_tokens": size + 5}
    return Events([chunk({"content": text}), chunk({}, "stop"), {**chunk({}), "choices": [], "usage": usage}])


class Models:
    """One model for everybody."""

    def __init__(self, model: Model, context: int | None) -> None:
        self.model = model
        model.context = context  # type: ignore[attr-defined] # as a chain has it
        model.vision = False  # type: ignore[attr-defined]

    async def get(self, name: str | None, session: SessionId) -> Any:
        return self.model


class Talk:
    """A lane in front of the server."""

    def __init__(self, folder: Path, server: OpenAIServer, context: int | None) -> None:
        self.model = Model(Endpoint(base_url=server.base_url, name="small", api_key=None))
        self.store = Store(folder)
        self.runner = AgentRunner("Be kind.", Models(self.model, context), Toolbox([]))
        self.news: asyncio.Queue[Update] = asyncio.Queue()
        self._turns = 0

    async def open(self) -> None:
        self.store.start()
        self.lane = Lane(SESSION, self.store, self.runner, asyncio.Semaphore(1), Rules())
        await self.lane.open()
        self.lane.feed.watch(self.news.put_nowait, None)

    async def ask(self, text: str) -> str:
        self._turns += 1
        await self.lane.submit(f"m{self._turns}", text)
        answer = ""
        async with asyncio.timeout(20):
            while not isinstance(update := await self.news.get(), Done):
                if isinstance(update, Stored) and isinstance(update.record.event, Assistant):
                    answer = update.record.event.content
        return answer

    async def summarised(self) -> None:
        """Wait until no summary is being written."""
        async with asyncio.timeout(20):
            while not self.lane.idle:  # noqa: ASYNC110 - a failure has no event
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        await self.lane.drain()
        await self.lane.close()
        await self.model.close()
        await self.store.close()


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


async def test_early_facts_are_known_at_the_end_of_a_thousand_turns(
    folder: Path, server: OpenAIServer
) -> None:
    remote = Server(context=1500)
    server.reply = remote.reply
    talk = Talk(folder, server, context=1500)
    await talk.open()
    for animal, name in (("cat", "Tom"), ("dog", "Rex"), ("cat", "Tim")):  # the last word counts
        await talk.ask(f"My {animal} is called {name}.")
    for number in range(TURNS):
        await talk.ask(f"Let us talk about {number} " + "or so " * (number % 40))
    await talk.summarised()
    assert await talk.ask("What is my cat called?") == "Tim"
    assert await talk.ask("What is my dog called?") == "Rex"
    assert await talk.ask("What is my fish called?") == "I do not know."
    await talk.close()
    assert max(remote.sizes) <= 1500
    assert remote.refused <= 3  # before the server's own count is known
    lines = (folder / "sessions" / "agent-main-cli-local.jsonl").read_bytes().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["name"] for event in events if event.get("name") == "turn_failed"] == []
    summaries = [event for event in events if event.get("name") == "summary"]
    paid = [event for event in summaries if "usage" in event]
    assert len(paid) == remote.summaries
    assert TURNS // 20 <= len(paid) <= TURNS // 2
    spent = [event["usage"]["input"] for event in events if "usage" in event]
    assert sum(spent) == sum(remote.sizes)  # every call is counted


async def test_a_context_that_nobody_configured_is_found_out(folder: Path, server: OpenAIServer) -> None:
    remote = Server(context=1500)
    server.reply = remote.reply
    talk = Talk(folder, server, context=None)
    await talk.open()
    await talk.ask("My cat is called Tom.")
    for number in range(60):
        await talk.ask(f"Let us talk about {number} " + "or so " * 20)
        await talk.summarised()
    assert await talk.ask("What is my cat called?") == "Tom"
    await talk.close()
    assert remote.refused < 30
    raw = (folder / "sessions" / "agent-main-cli-local.jsonl").read_bytes()
    assert b"turn_failed" not in raw
