"""A budget in a real daemon: prices, a tool on the way, a kill, and what people are told."""

from __future__ import annotations

from tests.conftest import Daemons
from tests.fakes.openai_server import CallTools, OpenAIServer, Say

LOCAL = "agent:main:cli:local"
PRICE = {"input": 1_000_000, "output": 0}  # every token in costs one: what the server reports is the cost


async def test_a_kill_gives_no_new_budget_and_a_refused_message_asks_no_model(
    daemons: Daemons, openai: OpenAIServer
) -> None:
    config = {
        "model": {"base_url": openai.base_url, "name": "fake-1", "api_key": "none-at-all", "price": PRICE},
        "agents": {"main": {"budget": {"peer": {"money": 0.5}}}},
    }
    daemon = daemons(config=config)
    daemon.folder.mkdir()
    (daemon.folder / "config.yaml").touch(mode=0o600)
    await daemon.start()
    client = await daemon.client()
    answer = await client.ask("Hello")
    assert answer["content"] == "echo: Hello"
    assert answer["usage"]["cost"] == answer["usage"]["input"] > 0
    await daemon.kill()

    await daemon.start()
    asked = len(openai.requests)
    client = await daemon.client()
    refused = await client.ask("And again")
    assert (refused["role"], refused["name"]) == ("system", "turn_failed")
    assert refused["content"].startswith("The budget of this conversation, 0.5000 in money, is used up")
    assert "midnight UTC" in refused["content"]
    assert len(openai.requests) == asked
    assert "And again" in [event.get("content") for event in daemon.events(LOCAL)]
    assert (await daemon.logged("turn", outcome="failed"))["session"] == LOCAL
    # Others have theirs.
    other = await daemon.client("other")
    assert (await other.ask("Hello"))["content"] == "echo: Hello"


async def test_a_turn_ends_between_its_model_calls(daemons: Daemons, openai: OpenAIServer) -> None:
    openai.script(CallTools([("get_current_datetime", {})], text="Let me see. ", then=Say("Late.")))
    async with daemons(server=openai, LUNAR_AGENTS__MAIN__BUDGET__AGENT__TOKENS="2") as daemon:
        client = await daemon.client()
        ended = await client.ask("What time is it?")
        assert "The assistant's budget for all conversations together, 2 tokens" in ended["content"]
        assert ended["usage"]["input"] > 0
        assert len(openai.requests) == 1
        roles = [event["role"] for event in daemon.events(LOCAL)]
        assert roles.count("tool_call") == roles.count("tool_result") == 1  # what it had begun is whole
