"""What a model sees: the last exchanges, ordered by turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from session.conversation import Conversation
from session.events import Assistant, Event, Record, System, ToolCall, ToolResult, User
from session.window import Exchange, Window


def user(id: str) -> User:
    return User(content=f"text of {id}", id=id)


def started(turn: str, *messages: str, attempt: int = 1) -> System:
    return System(name="started", turn=turn, messages=messages, attempt=attempt)


def answer(turn: str, *answers: str, finish: str = "stop") -> Assistant:
    return Assistant(content=f"answer {turn}", turn=turn, answers=answers, finish=finish)  # type: ignore[arg-type]


def call(turn: str, id: str = "c1") -> ToolCall:
    return ToolCall(name="clock", args={}, call_id=id, turn=turn)


def result(turn: str, id: str = "c1") -> ToolResult:
    return ToolResult(name="clock", result="10:05", call_id=id, ok=True, turn=turn)


def window(*events: Event, limit: int = 20) -> Window:
    """The window as a lane has it after these events."""
    conversation = Conversation(limit)
    for number, event in enumerate(events):
        conversation.apply(Record(f"{number}", event, b""))
    return conversation.window


def shape(exchanges: list[Exchange]) -> list[tuple[list[str], list[str]]]:
    """The messages' ids (or texts), and the kinds of the steps."""
    return [
        (
            [message.id or message.content for message in exchange.messages],
            [type(step).__name__ for step in exchange.steps],
        )
        for exchange in exchanges
    ]


def test_a_message_stands_before_the_turn_that_answers_it() -> None:
    """m2 came while t1 was running: in the file it stands before t1's answer."""
    seen = window(
        user("m1"), started("t1", "m1"), user("m2"), call("t1"), user("m3"), result("t1"),
        answer("t1", "m1"), started("t2", "m2", "m3"), answer("t2", "m2", "m3"),
    )  # fmt: skip
    assert shape(seen.before("t3")) == [
        (["m1"], ["ToolCall", "ToolResult", "Assistant"]),
        (["m2", "m3"], ["Assistant"]),
    ]


def test_waiting_messages_are_invisible() -> None:
    seen = window(user("m1"), started("t1", "m1"), user("m2"), call("t1"))
    assert shape(seen.before("t1")) == []
    assert shape([seen.of("t1")]) == [(["m1"], ["ToolCall"])]
    assert seen.size == 0


def test_a_running_turn_is_not_in_its_own_history() -> None:
    seen = window(user("m1"), started("t1", "m1"), answer("t1", "m1"), user("m2"), started("t2", "m2"))
    assert shape(seen.before("t2")) == [(["m1"], ["Assistant"])]
    assert shape([seen.of("t2")]) == [(["m2"], [])]


def test_a_steered_turn_has_its_new_messages_too() -> None:
    seen = window(
        user("m1"), started("t1", "m1"), call("t1"), user("m2"), result("t1"), started("t1", "m1", "m2"),
        answer("t1", "m1", "m2"),
    )  # fmt: skip
    assert shape(seen.before("t2")) == [(["m1", "m2"], ["ToolCall", "ToolResult", "Assistant"])]


def test_a_resumed_turn_keeps_its_finished_steps_and_has_its_messages_once() -> None:
    seen = window(
        user("m1"), started("t1", "m1"), call("t1"), result("t1"), started("t1", "m1", attempt=2),
        started("t1", "m1", attempt=3),
    )  # fmt: skip
    assert shape([seen.of("t1")]) == [(["m1"], ["ToolCall", "ToolResult"])]


def test_a_turn_whose_beginning_was_lost_in_a_crash() -> None:
    seen = window(user("m1"), user("m2"), answer("t1", "m1"), started("t2", "m2"))
    assert shape(seen.before("t2")) == [(["m1"], ["Assistant"])]
    assert shape([seen.of("t2")]) == [(["m2"], [])]


def test_a_failed_turn_is_a_closed_one() -> None:
    failed = System(name="turn_failed", turn="t1", answers=("m1",), content="Sorry.")
    seen = window(user("m1"), started("t1", "m1"), call("t1"), result("t1"), failed)
    assert shape(seen.before("t2")) == [(["m1"], ["ToolCall", "ToolResult"])]


def test_a_message_that_was_refused_without_a_turn_is_not_shown() -> None:
    refused = System(name="turn_failed", answers=("m1",), content="Too many waiting.")
    assert shape(window(user("m1"), refused).before("t1")) == []


def test_nothing_before_a_reset_is_seen() -> None:
    seen = window(
        user("m1"), started("t1", "m1"), answer("t1", "m1"), System(name="reset", id="c"), user("m2"),
        started("t2", "m2"), answer("t2", "m2"),
    )  # fmt: skip
    assert shape(seen.before("t3")) == [(["m2"], ["Assistant"])]


def test_a_turn_that_a_reset_interrupted_can_still_end() -> None:
    seen = window(user("m1"), started("t1", "m1"), System(name="reset"), call("t1"))
    assert shape([seen.of("t1")]) == [(["m1"], ["ToolCall"])]
    seen = window(user("m1"), started("t1", "m1"), System(name="reset"), answer("t1", "m1"))
    assert shape(seen.before("t2")) == []


def test_a_file_written_by_hand() -> None:
    seen = window(
        User(content="a"), User(content="b"), Assistant(content="c"), User(content="d"), ToolCall(name="f"),
        ToolResult(result="g"), Assistant(content="h"), user("m1"), started("t1", "m1"),
    )  # fmt: skip
    assert shape(seen.before("t1")) == [
        (["a", "b"], ["Assistant"]),
        (["d"], ["ToolCall", "ToolResult", "Assistant"]),
    ]


def test_a_line_added_by_hand_while_a_turn_runs_is_an_exchange_of_its_own() -> None:
    seen = window(user("m1"), started("t1", "m1"), User(content="by hand"), call("t1"), answer("t1", "m1"))
    assert shape(seen.before("t2")) == [(["m1"], ["ToolCall", "Assistant"]), (["by hand"], [])]


def test_the_oldest_exchanges_go_as_wholes() -> None:
    events: list[Event] = []
    for number in range(5):
        events += [user(f"m{number}"), started(f"t{number}", f"m{number}"), call(f"t{number}"),
                   result(f"t{number}"), answer(f"t{number}", f"m{number}")]  # fmt: skip
    steps = ["ToolCall", "ToolResult", "Assistant"]
    assert shape(window(*events, limit=4).before("t9")) == [(["m3"], steps), (["m4"], steps)]
    assert shape(window(*events, limit=5).before("t9")) == [(["m3"], steps), (["m4"], steps)]
    assert shape(window(*events, limit=3).before("t9")) == [(["m4"], steps)]
    assert shape(window(*events, limit=0).before("t9")) == [(["m4"], steps)]


def test_the_newest_exchange_is_whole_also_while_the_next_one_runs() -> None:
    """A long turn is not forgotten at the first tool call of the one after it."""
    long: list[Event] = [user("m1"), started("t1", "m1")]
    for _ in range(30):
        long += [Assistant(content="...", turn="t1", finish="tool_calls"), call("t1"), result("t1")]
    long.append(answer("t1", "m1"))
    seen = window(*long, user("m2"), started("t2", "m2"), call("t2"), result("t2"), limit=20)
    assert [exchange.turn for exchange in seen.before("t2")] == ["t1"]
    assert seen.before("t2")[0].size == 32


def test_a_turn_that_never_ends_does_not_keep_everything_after_it() -> None:
    events: list[Event] = [Assistant(content="of another program", turn="x")]
    for number in range(100):
        events += [
            user(f"m{number}"),
            started(f"t{number}", f"m{number}"),
            answer(f"t{number}", f"m{number}"),
        ]
    seen = window(*events, limit=10)
    assert len(seen.before("t")) == 5
    assert seen.size == 10


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), max_size=15), st.integers(0, 12))
def test_what_is_kept_is_the_newest_that_fits(turns: list[tuple[int, int]], limit: int) -> None:
    events: list[Event] = []
    sizes: list[int] = []
    for number, (asked, said) in enumerate(turns):
        turn, messages = f"t{number}", [f"m{number}.{part}" for part in range(asked)]
        events += [*map(user, messages), started(turn, *messages)]
        events += [Assistant(content="", turn=turn, finish="tool_calls")] * said
        events.append(answer(turn, *messages))
        sizes.append(asked + said + 1)
    seen = window(*events, limit=limit)
    kept = len(seen.before(""))
    assert [exchange.size for exchange in seen.before("")] == sizes[len(sizes) - kept :]
    assert seen.size == sum(sizes[len(sizes) - kept :])
    assert kept >= min(1, len(sizes))
    assert seen.size <= limit or kept <= 1
    if kept < len(sizes):
        assert sum(sizes[len(sizes) - kept - 1 :]) > limit
