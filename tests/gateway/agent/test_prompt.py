"""The window as messages: whatever a transcript holds, no provider may refuse it."""

import json
from typing import Any

import pytest

from gateway.agent import prompt
from gateway.agent.prompt import NO_ANSWER, NO_RESULT, Message
from session.events import Assistant, Event, Record, System, ToolCall, ToolResult, User
from session.window import Exchange, Step, Window


def exchange(*events: User | Assistant | ToolCall | ToolResult) -> Exchange:
    made = Exchange("t")
    made.messages = [event for event in events if isinstance(event, User)]
    made.steps = [event for event in events if not isinstance(event, User)]
    return made


def messages(*history: Exchange, current: Exchange | None = None, system: str = "") -> list[Message]:
    current = current or exchange(User(content="now"))
    return prompt.messages(system, history, current, current.steps)


def paired(found: list[Message]) -> bool:
    """Whether each call has its result directly behind it, and each result its call."""
    waiting: list[str] = []
    for message in found:
        if message["role"] == "tool":
            if not waiting or waiting.pop(0) != message["tool_call_id"]:
                return False
            continue
        if waiting:
            return False
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        if len(set(waiting)) != len(waiting):
            return False
    return not waiting


OTHER = ToolCall(name="y", call_id="c2")
NAMED = {name: ToolCall(name=name) for name in ("x", "y")}
TOLD = {name: ToolResult(name=name, result=f"of {name}") for name in ("x", "y")}
CALL, RESULT = (
    ToolCall(name="x", args={"a": 1}, call_id="c1"),
    ToolResult(name="x", result="one", call_id="c1"),
)


def test_an_ordinary_conversation() -> None:
    found = messages(exchange(User(content="Hello"), Assistant(content="Hi!")), system="Be kind.")
    assert found == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "now"},
    ]


def test_what_was_asked_together_is_one_message() -> None:
    [one] = messages(current=exchange(User(content="one"), User(content="two")))
    assert one == {"role": "user", "content": "one\n\ntwo"}


def test_a_turn_goes_on_behind_its_finished_steps() -> None:
    asked, said, result = messages(
        current=exchange(User(content="now"), Assistant(content="Well"), CALL, RESULT)
    )
    assert asked["content"] == "now"
    assert said["content"] == "Well"
    [call] = said["tool_calls"]
    assert call["function"] == {"name": "x", "arguments": '{"a": 1}'}
    assert result == {"role": "tool", "tool_call_id": call["id"], "content": "one"}


def test_rounds_are_told_apart() -> None:
    second = ToolCall(name="y", args={}, call_id="c2"), ToolResult(name="y", result="two", call_id="c2")
    found = messages(exchange(CALL, RESULT, *second, Assistant(content="Done")))
    assert [len(message.get("tool_calls", ())) for message in found] == [1, 0, 1, 0, 0, 0]
    assert paired(found)


@pytest.mark.parametrize(
    ("steps", "results"),
    [
        ([CALL], [NO_RESULT]),
        ([CALL, Assistant(content="Done")], [NO_RESULT]),
        ([RESULT], []),
        ([Assistant(content="Well"), RESULT], []),
        ([CALL, RESULT, RESULT], ["one"]),
        ([CALL, CALL, RESULT], ["one", NO_RESULT]),
        ([CALL, CALL, RESULT, ToolResult(name="x", result="two", call_id="c1")], ["one", "two"]),
        ([CALL, OTHER, ToolResult(name="y", result="two", call_id="c2"), RESULT], ["one", "two"]),
        ([ToolCall(name="x"), ToolResult(name="x", result="one")], ["one"]),
        ([NAMED["x"], NAMED["y"], TOLD["y"], TOLD["x"]], ["of x", "of y"]),
        ([CALL, ToolResult(name="x", result="no id")], ["no id"]),
        ([CALL, ToolResult(result="not even a name")], ["not even a name"]),
        ([ToolCall(name="x"), RESULT], ["one"]),
        ([CALL, ToolResult(name="x", result="another's", call_id="c9")], [NO_RESULT]),
        ([CALL, ToolResult(name="y", result="another's")], [NO_RESULT]),
        ([CALL, Assistant(content="in between"), RESULT], [NO_RESULT]),
        ([ToolCall(name="x", call_id=""), ToolResult(name="x", result="one", call_id="")], ["one"]),
    ],
)  # fmt: skip
def test_calls_and_results_are_paired(steps: list[Any], results: list[str]) -> None:
    for found in (
        messages(exchange(User(content="q"), *steps)),
        messages(current=exchange(User(content="q"), *steps)),
    ):
        assert paired(found)
        assert [message["content"] for message in found if message["role"] == "tool"] == results


@pytest.mark.parametrize(
    ("args", "arguments"),
    [
        (None, {}),
        ({}, {}),
        ({"a": [1, "ü"]}, {"a": [1, "ü"]}),
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ('{"a": 1', {"invalid_arguments": '{"a": 1'}),
        ("[1]", {"invalid_arguments": "[1]"}),
        ([1], {"invalid_arguments": [1]}),
        (7, {"invalid_arguments": 7}),
    ],
)
def test_arguments_are_always_an_object(args: object, arguments: dict[str, Any]) -> None:
    asked = messages(exchange(ToolCall(name="x", args=args)))[0]
    assert json.loads(asked["tool_calls"][0]["function"]["arguments"]) == arguments


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x", "x"), ("functions.clock", "functions_clock"), ("my tool/ü", "my_tool__"),
        ("", "tool"), ("\ud800", "_"), ("x" * 99, "x" * 64),
    ],
)  # fmt: skip
def test_names_are_those_that_providers_take(name: str, shown: str) -> None:
    asked = messages(exchange(ToolCall(name=name)))[0]
    assert asked["tool_calls"][0]["function"]["name"] == shown


@pytest.mark.parametrize(
    ("result", "content"),
    [("text", "text"), (None, "null"), (7, "7"), ({"ü": [1]}, '{"ü": [1]}'), (False, "false")],
)
def test_results_are_text(result: object, content: str) -> None:
    found = messages(exchange(CALL, ToolResult(name="x", result=result, call_id="c1")))
    assert found[1]["content"] == content


def test_what_utf8_cannot_carry_is_replaced_everywhere() -> None:
    bad = "a\ud800b"
    found = messages(
        exchange(
            User(content=bad),
            Assistant(content=bad),
            ToolCall(name="x", args={bad: bad}, call_id="c1"),
            ToolResult(name="x", result=bad, call_id="c1"),
            ToolCall(name="x", args=bad, call_id="c2"),
            ToolResult(name="x", result={bad: bad}, call_id="c2"),
        ),
        current=exchange(User(content="\ud83d\ude00 pair")),
    )
    json.dumps(found, ensure_ascii=False).encode()
    assert found[0]["content"] == "a\ufffdb"
    assert found[-1]["content"] == "\U0001f600 pair"


def test_two_questions_never_follow_one_another() -> None:
    unanswered = exchange(User(content="Never answered"))
    stopped = exchange(User(content="Stopped"), Assistant(content=""))
    found = messages(unanswered, stopped, exchange(User(content="Hello"), Assistant(content="Hi")))
    assert [message["role"] for message in found] == ["user", "assistant"] * 3 + ["user"]
    assert [found[1]["content"], found[3]["content"]] == [NO_ANSWER, NO_ANSWER]
    assert messages()[-1]["role"] == "user"


def test_a_message_stands_before_the_turn_that_answers_it() -> None:
    """By turn, not by line: the second message came while the first turn was running."""
    lines: list[Event] = [
        User(content="one", id="m1"),
        User(content="two", id="m2"),
        Assistant(content="to one", turn="t1", answers=("m1",)),
        Assistant(content="to two", turn="t2", answers=("m2",)),
        System(name="note", content="not for the model"),
    ]
    window = Window(20)
    users = {event.id: event for event in lines if isinstance(event, User)}
    window.begin("t1", [users["m1"]])
    window.add(Record("", lines[2], b"").event)
    window.begin("t2", [users["m2"]])
    for event in lines[3:]:
        window.add(event)
    window.begin("t3", [User(content="now", id="m3")])
    found = prompt.messages("", window.before("t3"), window.of("t3"), [])
    assert [message["content"] for message in found] == ["one", "to one", "two", "to two", "now"]


def test_what_came_with_a_message_stands_behind_its_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    past = exchange(User(content="look", id="5_1"), Assistant(content="A cat."))
    now = exchange(User(content="and", id="5_2"), User(content="this", id="5_3"))
    steered: list[Step] = [Assistant(content="Hm.", finish="tool_calls"), User(content="or this", id="5_4")]
    parts = {"5_1": [image], "5_3": [image, image], "5_4": [image], "5_9": [image]}
    assert prompt.messages("", [past], now, steered, parts=parts) == [
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [{"type": "text", "text": "and\n\nthis"}, image, image]},
        {"role": "assistant", "content": "Hm."},
        {"role": "user", "content": [{"type": "text", "text": "or this"}, image]},
    ]


def test_what_a_model_thought_is_never_sent_back() -> None:
    past = exchange(User(content="hi"), Assistant(content="Hello.", reasoning="secret thoughts"))
    assert "secret thoughts" not in json.dumps(messages(past))
