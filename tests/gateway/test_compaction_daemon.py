"""Summaries in the real daemon, as it is configured."""

from typing import Any

import pytest

from gateway.agent.prompt import SUMMARY
from gateway.agent.recap import PROMPT
from gateway.compaction import BEGUN, DONE
from tests.conftest import Daemons
from tests.fakes.daemon import Daemon
from tests.fakes.ndjson import Client
from tests.fakes.openai_server import Behaviour, OpenAIServer, Say, last_user_text

LOCAL = "agent:main:cli:local"


def summarising(body: dict[str, Any]) -> Behaviour:
    if body["messages"][0]["content"] == PROMPT:
        return Say("They count.")
    return Say(f"echo: {last_user_text(body)}")


def named(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    return [event for event in daemon.events(LOCAL) if event.get("name") == name]


async def stored(client: Client, name: str) -> None:
    """Wait until a system event of this name is told."""
    for frame in client.frames:
        if frame["type"] == "event" and frame["event"].get("name") == name:
            return
    await client.event(lambda event: event.get("name") == name)


def asked(openai: OpenAIServer, *, summary: bool) -> int:
    return sum((request.body["messages"][0]["content"] == PROMPT) == summary for request in openai.requests)


async def test_a_conversation_goes_on_from_its_summary(daemons: Daemons, openai: OpenAIServer) -> None:
    openai.reply = summarising
    daemon = daemons(server=openai, LUNAR_AGENTS__MAIN__HISTORY_TURNS="8")
    await daemon.start()
    client = await daemon.client()
    for number in range(4):
        await client.ask(str(number))
    await stored(client, "summary")
    assert named(daemon, "summary")[0]["usage"]["input"] > 0
    await daemon.kill()
    await daemon.start()
    client = await daemon.client()
    await client.ask("and now?")
    system, *messages = openai.requests[-1].body["messages"]
    assert system["content"].endswith(f"{SUMMARY}\nThey count.")
    assert [message["content"] for message in messages][::2] == ["0", "1", "2", "3", "and now?"]
    assert (asked(openai, summary=True), asked(openai, summary=False)) == (1, 5)


async def test_compact_in_a_chat(daemons: Daemons, openai: OpenAIServer) -> None:
    openai.reply = summarising
    daemon = daemons(
        server=openai, LUNAR_AGENTS__MAIN__SUMMARIES="false", LUNAR_AGENTS__MAIN__HISTORY_TURNS="8"
    )
    await daemon.start()
    client = await daemon.client()
    for number in range(8):
        await client.ask(str(number))
    assert asked(openai, summary=True) == 0
    assert await client.command("/compact") == BEGUN
    await client.event(lambda event: event.get("content") == DONE)
    await client.ask("and now?")
    system, *messages = openai.requests[-1].body["messages"]
    assert system["content"].endswith("They count.")
    assert [message["content"] for message in messages][::2] == ["6", "7", "and now?"]
    await client.command("/new")
    await client.ask("hello")
    assert [message["content"] for message in openai.requests[-1].body["messages"][1:]] == ["hello"]
    assert SUMMARY not in str(openai.requests[-1].body)


@pytest.mark.parametrize("context", [1000, 2000])
async def test_no_request_is_larger_than_the_configured_context(
    daemons: Daemons, openai: OpenAIServer, context: int
) -> None:
    openai.reply = summarising
    daemon = daemons(server=openai, LUNAR_MODEL__CONTEXT=str(context))
    await daemon.start()
    client = await daemon.client()
    for number in range(12):
        await client.ask(f"{number} " + "words " * 200)
    sizes = [sum(len(m["content"]) for m in request.body["messages"]) for request in openai.requests]
    assert max(sizes) < context * 4
    await stored(client, "summary")
    assert not named(daemon, "turn_failed")
    answers = [event for event in daemon.events(LOCAL) if "answers" in event]
    assert answers[-1]["content"] == "echo: 11 " + "words " * 200


async def test_the_demo_model_is_not_asked_for_summaries(daemons: Daemons) -> None:
    daemon = daemons(LUNAR_AGENTS__MAIN__HISTORY_TURNS="4")
    await daemon.start()
    client = await daemon.client()
    for number in range(4):
        await client.ask(f"{number}")
    assert await client.command("/compact") == BEGUN
    await client.event(lambda event: "demo model" in str(event.get("content")))
    assert not named(daemon, "summary")
    assert not named(daemon, "summary_failed")
