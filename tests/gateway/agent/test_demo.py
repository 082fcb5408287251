import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from gateway.agent.demo import DEMO_NOTICE, demo_model
from gateway.agent.demo_replies import Said, Wanted, respond
from gateway.agent.reply import Asked, Finish, Text

CLOCK = {
    "type": "function",
    "function": {
        "name": "get_current_datetime",
        "parameters": {"type": "object", "properties": {"timezone": {"type": "string"}}},
    },
}
CLOCK_WITHOUT_ZONE = {
    "type": "function",
    "function": {"name": "get_current_datetime", "parameters": {"type": "object"}},
}


def conversation(*said: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "My name is System. My favorite color is grey."}
    ]
    for text in said[:-1]:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "My name is Demo."}]
    return [*messages, {"role": "user", "content": said[-1]}]


def answer(*said: str, tools: list[dict[str, Any]] | None = None) -> str:
    reply = respond(conversation(*said), tools or [])
    assert isinstance(reply, Said), reply
    return reply.text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("My favorite color is blue", "What's my favorite color?"), "Your favorite color is blue!"),
        (("my FAVOURITE colour is Blue.", "what is my favorite color"), "Your favorite color is Blue!"),
        (("My favorite color is blue", "My favorite color is green!", "What's my favorite color?"), "green!"),
        (("My favorite color is blue", "no, it's dark green", "my favorite color?"), "dark green!"),
        (("My favorite color is blue\nWhat’s my favorite color?",), "Your favorite color is blue!"),
        (("My name is Hao", "What's my name?"), "Your name is Hao!"),
        (("I'm Hao", "what's my name"), "Hao!"),
        (("i'm hao.", "Who am I?"), "hao!"),
        (("I am Hao Tran", "Do you remember what my name is?"), "Hao Tran!"),
        (("Hi, call me Hao, please", "do you know my name"), "Hao!"),
        (("My name's Hao", "tell me my name please"), "Hao!"),
        (("My name is Jo", "Actually my name is Hao.", "What is my name again?"), "Hao!"),
        (("My name is Hao", "I'm tired", "I'm going home", "I'm from Hanoi", "What's my name?"), "Hao!"),
        (("my dog's name is Rex", "My name is Hao", "What's my dog's name?"), "Your dog's name is Rex!"),
        (("My email is a@b.com and my phone is 555-1", "What is my email?"), "a@b.com!"),
        (("My email is a@b.com and my phone is 555-1", "what's my phone number?"), "555-1!"),
        (("Can you remember that my pin is 12?", "What's my pin?"), "12!"),
        (("I live in Hanoi", "Where do I live?"), "You live in Hanoi!"),
        (("What's my name?",), "You haven't told me your name yet."),
        (("Is my name Hao?", "What's my name?"), "You haven't told me your name yet."),
        (("What do you know about me?",), "Nothing yet"),
    ],
)  # fmt: skip
def test_facts(said: tuple[str, ...], expected: str) -> None:
    assert expected in answer(*said)


def test_all_facts_are_listed() -> None:
    listed = answer(
        "My name is Hao. My cat is Tom", "I live in Hanoi", "my cat is Felix", "What do you know about me?"
    )
    assert listed.splitlines()[2:] == ["- Your name is Hao", "- Your cat is Felix", "- You live in Hanoi"]


def test_a_fact_is_acknowledged() -> None:
    assert answer("My favorite color is blue") == "Got it: your favorite color is blue."


def test_only_what_the_person_said_counts() -> None:
    assert "haven't told me" in answer("hello", "What's my name?")
    assert "haven't told me" in answer("What's my favorite color?")


def test_content_in_parts_is_read() -> None:
    parts = [
        {"type": "text", "text": "My name is Hao."},
        {"type": "image_url"},
        {"type": "text", "text": "Who am I?"},
    ]
    reply = respond([{"role": "user", "content": parts}], [])
    assert isinstance(reply, Said)
    assert "Your name is Hao!" in reply.text


@pytest.mark.parametrize(
    "asked", ["who are you?", "Are you an AI?", "are you ChatGPT", "what are you", "what model is this"]
)
def test_it_says_what_it_is(asked: str) -> None:
    assert answer(asked) == DEMO_NOTICE
    assert "demo" in DEMO_NOTICE
    assert "OPENAI_API_KEY" in DEMO_NOTICE
    assert "\n" not in DEMO_NOTICE


@pytest.mark.parametrize("asked", ["help", "Help!", "/help", "/?", "?", "what can you do?"])
def test_help(asked: str) -> None:
    assert "What's my favorite color?" in answer(asked)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("hi", "Hello!"),
        ("Good morning", "Hello!"),
        ("thanks a lot", "You're welcome!"),
        ("ping", "pong"),
        ("echo Some Words", "Some Words"),
        ("count to 4", "1, 2, 3, 4."),
    ],
)
def test_short_answers(asked: str, expected: str) -> None:
    assert answer(asked).startswith(expected)


def test_anything_else_is_answered_honestly() -> None:
    reply = answer("Explain monads")
    assert "Explain monads" in reply
    assert DEMO_NOTICE in reply
    assert len(answer("x " * 30_000)) < 500
    assert DEMO_NOTICE in answer("")


def test_counting_is_bounded() -> None:
    assert "1000. And so on" in answer("count to 999999999")


def test_markdown_holds_all_that_is_to_be_seen() -> None:
    sample = answer("Show me markdown")
    for piece in ("# A heading", "```python\n", "|---|", "](https://", "\n1. ", "**bold**"):
        assert piece in sample
    assert len(answer("send a long text")) > 4096


@pytest.mark.parametrize(
    ("asked", "zone"),
    [
        ("What time is it?", None),
        ("what's the date today", None),
        ("What time is it in Tokyo?", "Asia/Tokyo"),
        ("what time is it in new york right now", "America/New_York"),
        ("time in Vietnam?", "Asia/Ho_Chi_Minh"),
        ("what is the time in America/Los_Angeles", "America/Los_Angeles"),
        ("What time is it in Gotham?", None),
        ("What's the current time in UTC", "UTC"),
    ],
)
def test_the_time_is_asked_of_the_tool(asked: str, zone: str | None) -> None:
    wanted = respond(conversation("hi", asked), [CLOCK])
    assert wanted == Wanted("get_current_datetime", {"timezone": zone} if zone else {})
    assert respond(conversation(asked), [CLOCK_WITHOUT_ZONE]) == Wanted("get_current_datetime", {})


def test_without_the_tool_it_does_not_pretend() -> None:
    assert "not offered" in answer("What time is it?")
    assert "haven't told me" in answer("What time is my meeting?", tools=[CLOCK])


async def ask(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> tuple[list[str], Finish]:
    model = demo_model(delay=0)
    try:
        pieces = [piece async for piece in model.ask(messages, tools)]
    finally:
        await model.close()
    *texts, finish = pieces
    assert isinstance(finish, Finish)
    return [text.text for text in texts if isinstance(text, Text)], finish


async def test_a_tool_is_called_and_its_result_told() -> None:
    messages = conversation("What time is it in Tokyo?")
    texts, finish = await ask(messages, [CLOCK])
    assert (texts, finish.reason) == ([], "tool_calls")
    [call] = finish.calls
    function = {"name": call.name, "arguments": call.arguments}
    messages.append(
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]}
    )
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "10:05 PM"})
    texts, finish = await ask(messages, [CLOCK])
    assert ("".join(texts), finish.reason) == ("It's 10:05 PM in Tokyo.", "stop")
    messages.append({"role": "assistant", "content": "It's 10:05 PM in Tokyo."})
    messages.append({"role": "user", "content": "And what time is it now?"})
    assert (await ask(messages, [CLOCK]))[1].reason == "tool_calls"


@pytest.mark.parametrize("asked", ["Show me markdown", "count to 30", "hi"])
async def test_it_is_streamed_word_by_word_through_the_real_client(asked: str) -> None:
    texts, finish = await ask(conversation(asked), [])
    assert "".join(texts) == answer(asked)
    assert len(texts) >= len(answer(asked).split()) * 0.9
    assert (finish.reason, finish.model) == ("stop", "demo")
    assert finish.usage is not None


async def test_it_can_be_stopped() -> None:
    model = demo_model(delay=0.001)
    assert (model.label, model.health) == ("demo", None)
    async with aclosing(model.ask(conversation("count to 1000"), [])) as reply:
        assert [type(await anext(reply)) for _ in range(2)] == [Asked, Text]
        task = asyncio.create_task(anext(reply))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await model.close()
