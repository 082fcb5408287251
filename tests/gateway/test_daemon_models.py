"""Several models inside a real daemon: photos for those that see, one that stands in, one that is chosen."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Daemons
from tests.fakes.openai_server import Events, OpenAIServer, Say, Status, chunk, last_user_text
from tests.fakes.telegram_server import TelegramServer

TOKEN = "123456:AAphotophotophotophotophotophotopho"
PNG = b"\x89PNG\r\n\x1a\n" + b"a cat" * 10
KEY = "sk-test-0123456789abcdef"
SESSION = "agent:main:cli:local"


@pytest.fixture
async def second() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(reply=lambda body: Say(f"second: {last_user_text(body)}")) as server:
        yield server


def configured(first: OpenAIServer, second: OpenAIServer, **agent: Any) -> dict[str, Any]:
    """Two models, the first of which sees; secrets come from the environment."""
    models: dict[str, dict[str, Any]] = {
        name: {"base_url": server.base_url, "name": f"{name}-1", "api_key": {"env": "KEY"}}
        for name, server in (("first", first), ("second", second))
    }
    models["first"] |= {"vision": True, "price": {"input": 1.0, "output": 2.0}, "reasoning": "stored"}
    return {"models": models, "agents": {"main": {"model": "first", "fallback": ["second"], **agent}}}


async def test_a_photo_reaches_models_that_see_and_its_line_the_others(
    daemons: Daemons, openai: OpenAIServer, second: OpenAIServer
) -> None:
    async with TelegramServer(TOKEN) as telegram:
        config = configured(openai, second, summaries=False)
        config["channels"] = {"telegram": {"api_url": telegram.api_url, "allow": [7]}}
        daemon = daemons(config=config, KEY=KEY, TELEGRAM_BOT_TOKEN=TOKEN)
        await daemon.start()
        await daemon.logged("channel ready", channel="telegram")
        openai.reply = lambda body: Say("A cat.")
        ann = telegram.user(7, "Ann")
        ann.sends_photo(PNG, "What is it?")
        await telegram.until(lambda: ann.chat.texts() == ["A cat."], timeout=20)
        text, image = openai.requests[-1].body["messages"][-1]["content"]
        assert text["text"].startswith("[photo, 1280×1280, 58 B, kept as media/telegram/7_")
        assert text["text"].endswith("]\nWhat is it?")
        assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
        # It is still in the window at the next question, and a model that does not see gets its line.
        openai.reply = lambda body: Status(401)
        second.reply = lambda body: Say("I cannot see it.")
        ann.says("And its colour?")
        await telegram.until(lambda: ann.chat.texts()[-1] == "I cannot see it.", timeout=20)
        assert openai.requests[-1].body["messages"][-3]["content"] == [text, image]
        assert second.requests[-1].body["messages"][-3]["content"] == text["text"]


async def test_another_model_stands_in_and_that_is_told(
    daemons: Daemons, openai: OpenAIServer, second: OpenAIServer
) -> None:
    daemon = await daemons(config=configured(openai, second), KEY=KEY).start()
    client = await daemon.client()
    assert (await client.ask("Hello"))["content"] == "echo: Hello"
    openai.reply = lambda body: Status(401)
    assert (await client.ask("Again"))["content"] == "second: Again"
    told = await daemon.logged("another model is asked", model="first-1", next="second-1")
    assert "401" in told["reason"]
    status, body = await daemon.get("/readyz")
    assert (status, body["ok"]) == (200, True)
    assert "refuses 'first-1' (401)" in body["why"]["model first"]
    assert "first-1 does not answer; second-1 does in its place" in await client.command("/status")
    answers = [event for event in daemon.events(SESSION) if event["role"] == "assistant"]
    assert [event["usage"].get("cost") for event in answers] == [0.000019, None]
    second.reply = lambda body: Status(500)
    failed = await client.ask("Nobody?")
    assert failed["name"] == "turn_failed"
    assert "usage" not in failed
    assert (await daemon.get("/readyz"))[0] == 200


async def test_a_model_is_chosen_for_good(
    daemons: Daemons, openai: OpenAIServer, second: OpenAIServer
) -> None:
    daemon = await daemons(config=configured(openai, second), KEY=KEY).start()
    client = await daemon.client()
    assert "second-1 answers here" in await client.command("/model second")
    await daemon.kill()
    await daemon.start()
    client = await daemon.connect()
    assert (await client.hello())["model"] == "second-1"
    assert "Model: second-1" in await client.command("/status")
    assert (await client.ask("Hello"))["content"] == "second: Hello"
    other = await daemon.connect()
    assert (await other.hello("elsewhere"))["model"] == "first-1"
    assert (await other.ask("Hello"))["content"] == "echo: Hello"
    assert "first-1 answers here" in await client.command("/model default")
    assert (await client.ask("And now?"))["content"] == "echo: And now?"


async def test_thoughts_are_stored_where_that_is_asked_for_and_shown_to_nobody(
    daemons: Daemons, openai: OpenAIServer, second: OpenAIServer
) -> None:
    thought = [chunk({"reasoning_content": "hm, hm"}), *Say("Yes.").events()]
    openai.reply = second.reply = lambda body: Events(thought)
    daemon = await daemons(config=configured(openai, second), KEY=KEY).start()
    client = await daemon.client()
    answer = await client.ask("Is it?")
    assert (answer["content"], "reasoning" in answer) == ("Yes.", False)
    await client.command("/model second")
    await client.ask("Is it?")
    stored = [event for event in daemon.events(SESSION) if event["role"] == "assistant"]
    assert [event.get("reasoning") for event in stored] == ["hm, hm", None]
    assert "hm, hm" not in str(client.frames)
    assert "hm, hm" not in str(second.requests[-1].body)
