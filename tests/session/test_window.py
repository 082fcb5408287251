"""What a model sees: the last exchanges, ordered by turn."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from session import backlog
from session.conversation import Conversation
from session.events import Assistant, Event, Record, System, ToolCall, ToolResult, User
from session.window import Exchange, Window


def user(id: str) -> User:
    return User(content=f"text of {id}", id=id)


def started(turn: str, *messages: str, attempt: int = 1) -> System:
    return System(name="started", turn=turn, messages=messages, attempt=attempt)


def answer(turn: str, *answers: str, finish: str = "stop") -> Assistant:
    return Assistant(content=f"answer {turn}", turn=turn, answers=answers, finish=finish)  # type: ignore[arg-type] # a `Finish`, as the callers give it


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


# -- summaries, and what was taken back ------------------------------------------------------------


def undo(turn: str) -> System:
    return System(name="undo", turn=turn, id=f"undo {turn}")


def summary(covers: str, *, instead: bool | None = None) -> System:
    return System(name="summary", content=f"up to {covers}", covers=covers, instead=instead)


def exchanges(count: int) -> list[Event]:
    """Turns t0, t1, ... of two messages each."""
    events: list[Event] = []
    for number in range(count):
        turn, message = f"t{number}", f"m{number}"
        events += [user(message), started(turn, message), answer(turn, message)]
    return events


def turns(exchanges: Iterable[Exchange]) -> list[str | None]:
    return [exchange.turn for exchange in exchanges]


def test_what_was_taken_back_is_not_seen() -> None:
    seen = window(*exchanges(4), undo("t3"), undo("t1"))
    assert turns(seen.before("")) == ["t0", "t2"]
    assert seen.size == 4
    assert seen.last(None) is seen.before("")[-1]
    assert turns(window(*exchanges(2), undo("unknown")).before("")) == ["t0", "t1"]


def test_a_turn_that_is_taken_back_while_it_runs_has_itself_until_it_is_over() -> None:
    running: list[Event] = [user("m9"), started("t9", "m9"), undo("t9"), call("t9"), result("t9")]
    seen = window(*exchanges(1), *running)
    assert shape([seen.of("t9")]) == [(["m9"], ["ToolCall", "ToolResult"])]
    assert (seen.last("t9") or seen.of("t9")).turn == "t0"
    assert turns(window(*exchanges(1), *running, answer("t9", "m9")).before("")) == ["t0"]


def test_the_last_one_is_the_running_one_and_none_that_nobody_closed() -> None:
    phantom = Assistant(content="of another program", turn="x")
    seen = window(*exchanges(1), phantom, user("m9"), started("t9", "m9"))
    for running, last in (("t9", "t9"), (None, "t0")):
        exchange = seen.last(running)
        assert exchange
        assert exchange.turn == last
    assert window(phantom).last(None) is None
    assert window(User(content="by hand"), Assistant(content="x")).last(None) is None


def test_a_summary_tells_of_what_is_seen_as_well() -> None:
    seen = window(*exchanges(5), summary("t1"), limit=6)
    assert seen.summary == "up to t1"
    assert turns(seen.before("")) == ["t2", "t3", "t4"]
    assert list(seen.backlog) == []
    assert turns(window(*exchanges(5), limit=6).backlog) == ["t0", "t1"]
    seen = window(*exchanges(5), summary("t3"), limit=6)
    assert turns(seen.before("")) == ["t2", "t3", "t4"]
    assert turns(seen.uncovered()) == ["t4"]


def test_a_summary_may_stand_instead_of_what_it_tells_of() -> None:
    seen = window(*exchanges(5), summary("t3", instead=True))
    assert turns(seen.before("")) == ["t4"]
    seen = window(*exchanges(5), summary("long ago", instead=True))
    assert turns(seen.before("")) == ["t0", "t1", "t2", "t3", "t4"]


def test_a_reset_forgets_summary_and_backlog() -> None:
    seen = window(*exchanges(9), summary("t0"), System(name="reset"), limit=4)
    assert seen.summary is None
    assert seen.known == []


def test_the_backlog_is_bounded_in_messages_and_in_bytes() -> None:
    seen = window(*exchanges(100), limit=4)
    assert turns(seen.backlog) == [f"t{number}" for number in range(66, 98)]
    assert sum(exchange.size for exchange in seen.backlog) == backlog.MESSAGES
    large: list[Event] = []
    for number in range(10):
        turn, message = f"t{number}", f"m{number}"
        large += [User(content="x" * 60_000, id=message), started(turn, message), call(turn)]
        large += [ToolResult(name="f", result="y" * 60_000, call_id="c1", turn=turn), answer(turn, message)]
    seen = window(*large, limit=4)
    assert turns(seen.backlog) == ["t4", "t5", "t6", "t7"]  # 60 KB each: their results are cut short
    assert sum(exchange.bytes for exchange in seen.backlog) <= backlog.BYTES
    huge = [User(content="x" * 300_000, id="m1"), started("t1", "m1"), answer("t1", "m1"), *exchanges(3)]
    assert turns(window(*huge, limit=6).backlog) == ["t1"]


def test_what_was_steered_into_a_turn_stands_where_it_came() -> None:
    seen = window(
        user("m1"), started("t1", "m1"), call("t1"), user("m2"), user("m3"), result("t1"),
        System(name="steered", turn="t1", messages=("m2", "m3")), answer("t1", "m1", "m2", "m3"),
    )  # fmt: skip
    [exchange] = seen.before("")
    assert [type(step).__name__ for step in exchange.steps] == [
        "ToolCall", "ToolResult", "User", "User", "Assistant",
    ]  # fmt: skip
    assert [message.id for message in exchange.asked] == ["m1", "m2", "m3"]
    assert exchange.size == 4
