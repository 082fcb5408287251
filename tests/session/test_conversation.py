"""What a lane knows of its session, from the whole file or from the end of it."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import session.backlog
from session import conversation, lasting
from session.conversation import Attempt, Conversation, tail
from session.events import Assistant, Event, Record, System, ToolCall, ToolResult, User
from session.exchange import Exchange


def records(events: list[Event]) -> list[Record]:
    return [Record(f"{number}", event, b"x" * 100) for number, event in enumerate(events)]


def folded(records: list[Record], history_turns: int = 20) -> Conversation:
    known = Conversation(history_turns, push=True)
    for record in records:
        known.apply(record)
    return known


def end_of(all_: list[Record], history_turns: int = 20) -> list[Record]:
    """What `Store.recent` gives."""
    enough = tail(history_turns)
    for count, record in enumerate(reversed(all_), 1):
        if enough(record):
            return all_[len(all_) - count :]
    return all_


def user(id: str, text: str = "hi") -> User:
    return User(content=text, id=id)


def test_a_message_is_open_until_it_is_answered() -> None:
    known = folded(records([user("m1"), user("m2")]))
    assert list(known.open) == ["m1", "m2"]
    assert known.waiting() == [user("m1"), user("m2")]
    assert known.running is None
    assert known.cursor == "1"
    started = System(name="started", turn="t1", messages=("m1",), attempt=2)
    known.apply(Record("2", started, b""))
    assert known.running == Attempt("t1", ("m1",), 2)
    assert known.waiting() == [user("m2")]
    known.apply(Record("3", Assistant(content="", turn="t1", answers=("m1",)), b""))
    assert known.running is None
    assert list(known.open) == ["m2"]
    known.apply(Record("4", System(name="turn_failed", turn="t2", answers=("m2",)), b""))
    assert not known.open
    assert known.cursor == "4"


def test_a_message_without_id_is_never_open() -> None:
    known = folded(records([User(content="by hand")]))
    assert not known.open
    assert not known.seen


def test_a_repeat_is_recognised_and_told_from_another_text() -> None:
    known = folded(records([user("m1", "a"), System(name="setting", id="c1", key="model")]))
    assert known.seen["m1"] == conversation.Seen("0", hash("a"), False)
    assert known.seen["c1"].command
    assert known.seen["c1"].cursor == "1"


def test_what_is_remembered_is_bounded() -> None:
    known = folded(records([user(f"m{number}") for number in range(5_000)]))
    assert len(known.seen) <= 2 * conversation.REMEMBERED
    assert list(known.seen)[-1] == "m4999"


def test_calls_without_result() -> None:
    events: list[Event] = [
        user("m1"),
        System(name="started", turn="t1", messages=("m1",)),
        ToolCall(name="a", call_id="c1", turn="t1"),
        ToolCall(name="b", call_id="c2", turn="t1"),
        ToolResult(name="a", call_id="c1", turn="t1"),
        ToolCall(name="foreign", call_id="c9"),
    ]
    assert list(folded(records(events)).unfinished_calls) == ["c2"]
    closing = Assistant(content="", turn="t1", answers=("m1",))
    assert not folded(records([*events, closing])).unfinished_calls
    assert not folded(
        records([events[0], *events[2:], closing])
    ).unfinished_calls  # `started` lost in a crash


def test_closing_another_turn_leaves_the_running_one() -> None:
    events: list[Event] = [
        user("m1"),
        System(name="started", turn="t1", messages=("m1",)),
        ToolCall(name="a", call_id="c1", turn="t1"),
        user("m2"),
        System(name="turn_failed", answers=("m2",)),
    ]
    known = folded(records(events))
    assert known.running == Attempt("t1", ("m1",), 1)
    assert list(known.open) == ["m1"]
    assert list(known.unfinished_calls) == ["c1"]


# -- the end of the file is enough ---------------------------------------------------------------


class Lane:
    """Writes events as a lane would, from random decisions."""

    def __init__(self, decide: random.Random, history_turns: int) -> None:
        self.known = Conversation(history_turns, push=True)
        self.events: list[Event] = []
        self._decide = decide
        self._number = 0
        self._waiting: list[str] = []
        self._turn: tuple[str, list[str]] | None = None
        self._calls: list[str] = []

    def _id(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}{self._number}"

    def _put(self, *events: Event) -> None:
        carried = self.known.lasting.carry(1) if isinstance(events[0], User) else []
        for event in (*carried, *events):
            self.known.apply(Record("", event, b""))
            self.events.append(event)

    def message(self) -> None:
        self._waiting.append(self._id("m"))
        self._put(user(self._waiting[-1]))

    def refused(self) -> None:
        """A chat that floods: stored and closed at once, while others wait or run."""
        id = self._id("m")
        turn = self._decide.choice([None, self._id("r")])
        self._put(user(id), System(name="turn_failed", turn=turn, answers=(id,)))

    def by_hand(self) -> None:
        added: list[Event] = [Assistant(content="y"), System(name="note"), User(content="x")]
        # Messages of another program come before ours: they were there when the session was taken over.
        self._put(self._decide.choice(added[: 2 if self._number else 3]))

    def begin(self) -> None:
        if self._turn is None and self._waiting:
            count = self._decide.choice([1, len(self._waiting)])
            self._turn = self._id("t"), self._waiting[:count]
            del self._waiting[:count]
            if self._decide.random() < 0.9:
                self.attempt(1)

    def attempt(self, attempt: int = 2) -> None:
        if self._turn:
            turn, messages = self._turn
            self._put(System(name="started", turn=turn, messages=tuple(messages), attempt=attempt))

    def tool(self) -> None:
        if self._turn and any(getattr(event, "turn", None) == self._turn[0] for event in self.events[-50:]):
            id = self._id("c")
            self._put(ToolCall(name="f", call_id=id, turn=self._turn[0]))
            if self._decide.random() < 0.8:
                self._put(ToolResult(name="f", result=id, call_id=id, turn=self._turn[0]))

    def steer(self) -> None:
        if self._turn and self._waiting and self.known.running:
            taken, self._waiting = tuple(self._waiting), []
            self._turn[1].extend(taken)
            self._put(System(name="steered", turn=self._turn[0], messages=taken))
            self._put(Assistant(content="on the way", turn=self._turn[0], finish="tool_calls"))

    def end(self) -> None:
        if self._turn:
            turn, messages = self._turn
            answers = tuple(messages)
            closing: list[Event] = [
                Assistant(content="a", turn=turn, answers=answers, finish="stop"),
                System(name="turn_failed", turn=turn, answers=answers),
            ]
            self._put(self._decide.choice(closing))
            self._turn = None

    def reset(self) -> None:
        self._put(System(name="reset", id=self._id("c")))

    def undo(self) -> None:
        if exchange := self.known.window.last(self._turn[0] if self._turn else None):
            self._put(System(name="undo", turn=exchange.turn, id=self._id("c")))

    def again(self) -> None:
        """What was asked last is asked once more."""
        exchange = self.known.window.last(None)
        if exchange and exchange.closed:
            id = self._id("m")
            self._put(System(name="undo", turn=exchange.turn, id=id))
            self._put(user(id, "again"))
            self._waiting.append(id)

    def summary(self) -> None:
        if turns := [exchange.turn for exchange in self.known.window.uncovered() if exchange.turn]:
            covers, instead = self._decide.choice(turns), self._decide.choice([None, True])
            self._put(System(name="summary", covers=covers, instead=instead, content=f"up to {covers}"))

    def choose(self) -> None:
        key, value = self._decide.choice(["model", "queue"]), self._decide.choice([None, self._id("v")])
        self._put(System(name="setting", key=key, value=value))

    def move(self) -> None:
        self._put(System(name="address", chat=self._id("chat")))

    def many(self) -> None:
        for _ in range(self._decide.randrange(12)):
            self.refused()


def history(seed: int, length: int, history_turns: int) -> Lane:
    decide = random.Random(seed)
    lane = Lane(decide, history_turns)
    acts = [
        lane.message,
        lane.begin,
        lane.tool,
        lane.end,
        lane.refused,
        lane.by_hand,
        lane.attempt,
        lane.reset,
        lane.many,
        lane.steer,
        lane.undo,
        lane.again,
        lane.summary,
        lane.choose,
        lane.move,
    ]
    weights = [decide.random() ** 2 for _ in acts]
    weights[7] *= 0.1
    for act in decide.choices(acts, weights, k=length):
        act()
    return lane


def shape(exchanges: Iterable[Exchange]) -> list[tuple[object, ...]]:
    return [(e.turn, e.messages, e.steps, e.covered) for e in exchanges]


@given(st.integers(0, 2**32), st.integers(0, 150), st.integers(2, 12), st.integers(0, 12), st.integers(0, 6))
@example(2, 120, 2, 0, 0)
def test_the_end_of_the_file_tells_the_same_as_all_of_it(
    seed: int, length: int, remembered: int, history_turns: int, backlog: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lasting, "CARRIED", remembered // 2)
        for module in (session.backlog, conversation):
            patch.setattr(module, "MESSAGES", backlog)
        lane = history(seed, length, history_turns)
        all_ = records(lane.events)
        with pytest.MonkeyPatch.context() as shorter:
            shorter.setattr(conversation, "REMEMBERED", remembered)
            some = end_of(all_, history_turns)
        whole, known = folded(all_, history_turns), folded(some, history_turns)
    assert lane.known.open == whole.open
    assert shape(lane.known.window.uncovered()) == shape(whole.window.uncovered())
    assert known.open == whole.open
    assert known.running == whole.running
    assert known.waiting() == whole.waiting()
    assert known.unfinished_calls == whole.unfinished_calls
    assert known.cursor == whole.cursor or not all_
    assert shape(known.window.before("")) == shape(whole.window.before(""))
    assert shape(known.window.uncovered()) == shape(whole.window.uncovered())
    assert known.window.summary == whole.window.summary
    assert known.settings == whole.settings
    assert known.replies
    assert whole.replies
    assert known.replies.address == whole.replies.address
    if whole.running:
        mine, other = known.window.of(whole.running.turn), whole.window.of(whole.running.turn)
        assert (mine.messages, mine.steps) == (other.messages, other.steps)
    users = [event.id for record in all_ if isinstance(event := record.event, User)]
    assert {id for id in users[len(users) - remembered :] if id} <= known.seen.keys()


def test_a_message_that_waits_behind_a_flood_is_found() -> None:
    """m1's turn runs for minutes; meanwhile a thousand messages are refused, then the daemon is killed."""
    events: list[Event] = [
        user("m0"),
        System(name="started", turn="t0", messages=("m0",)),
        Assistant(content="", turn="t0", answers=("m0",)),
        user("m1"),
        System(name="started", turn="t1", messages=("m1",)),
    ]
    for number in range(1_000):
        events += [user(f"f{number}"), System(name="turn_failed", answers=(f"f{number}",))]
    known = folded(end_of(records(events)))
    assert list(known.open) == ["m1"]
    assert known.running == Attempt("t1", ("m1",), 1)


def exchanges(count: int) -> list[Event]:
    events: list[Event] = []
    for number in range(count):
        events += [
            user(f"m{number}"),
            System(name="started", turn=f"t{number}", messages=(f"m{number}",)),
            Assistant(content="", turn=f"t{number}", answers=(f"m{number}",)),
        ]
    return events


def test_the_cost_does_not_grow_with_the_file() -> None:
    ends = [len(end_of(records(exchanges(count)))) for count in (300, 3_000, 10_000)]
    assert ends[0] == ends[1] == ends[2] == 3 * conversation.REMEMBERED


def test_a_long_file_of_another_program_is_not_read_whole() -> None:
    foreign: list[Event] = [User(content="a"), Assistant(content="b")]
    assert len(end_of(records(foreign * 5_000))) <= 2 * conversation.REMEMBERED
    assert len(end_of(records(foreign * 5_000 + exchanges(300)))) <= 3 * conversation.REMEMBERED


def test_the_reading_is_bounded_in_bytes() -> None:
    enough = tail(20)
    record = Record("", System(name="note"), b"x" * (1 << 20))
    assert [enough(record) for _ in range(64)] == [False] * 63 + [True]
