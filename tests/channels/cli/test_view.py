"""What a person is shown, as values: for what a terminal's test cannot tell apart."""

from __future__ import annotations

from itertools import count

import msgspec

from channels import wire
from channels.cli.draft import Draft, Reply
from channels.cli.link import Lost, Received
from channels.cli.view import Faint, Question, Said, View
from session import events

_cursors = count()


def hear(view: View, *frames: wire.ServerFrame | events.Event) -> None:
    for frame in frames:
        if isinstance(frame, events.Event):
            raw = msgspec.Raw(events.to_json(frame))
            frame = wire.EventFrame(cursor=str(next(_cursors)), event=raw)
        view.hear(Received(b"", frame))


def welcome(running: wire.RunningFrame | None = None) -> wire.Welcome:
    return wire.Welcome(session_id="s", agent="main", model="demo", turns=0, running=running)


def started(turn: str = "t1", attempt: int = 1) -> wire.StartedFrame:
    return wire.StartedFrame(turn=turn, answers=("m1",), attempt=attempt)


def closing(text: str, turn: str = "t1") -> events.Assistant:
    return events.Assistant(content=text, turn=turn, answers=("m1",), finish="stop")


def in_conversation() -> View:
    view = View()
    hear(view, welcome())
    view.say("m1", "question")
    view.take()
    return view


def test_a_reply_that_begins_alike_goes_on_where_it_was() -> None:
    view = in_conversation()
    hear(view, started(), wire.DeltaFrame(turn="t1", text="First.\n\nSec"))
    view.keep(len("First.\n\n"))
    hear(view, started(attempt=2), wire.DeltaFrame(turn="t1", text="Fir"))
    assert view.draft is not None
    assert view.draft.rest == Reply("")
    hear(view, wire.DeltaFrame(turn="t1", text="st.\n\nSecond"))
    assert view.draft.rest == Reply("Second")
    hear(view, closing("First.\n\nSecond."))
    assert view.take() == [Reply("First.\n\n"), Reply("Second.")]


def test_a_reply_that_turns_out_another_is_shown_whole_and_said_to_be() -> None:
    view = in_conversation()
    hear(view, started(), wire.DeltaFrame(turn="t1", text="First.\n\nSec"))
    view.keep(len("First.\n\n"))
    hear(view, started(attempt=2), wire.DeltaFrame(turn="t1", text="Other"))
    assert view.draft is not None
    assert view.draft.rest == Reply("Other")
    assert not view.draft.may_keep
    hear(view, closing("Other."))
    assert view.take() == [Reply("First.\n\n"), Faint("— the reply was begun anew —"), Reply("Other.")]


def test_a_snapshot_survives_the_older_events_that_follow_it() -> None:
    view = in_conversation()
    hear(view, started(), wire.DeltaFrame(turn="t1", text="Let me look"))
    view.hear(Lost("gone"))
    hear(view, welcome(wire.RunningFrame(turn="t1", answers=("m1",), text="It rai")))
    hear(view, events.Assistant(content="Let me look.", turn="t1", finish="tool_calls"))
    hear(view, wire.DeltaFrame(turn="t1", text="ns"))
    assert view.draft is not None
    assert view.draft.rest == Reply("It rains")
    hear(view, closing("It rains."))
    assert view.take() == [Reply("Let me look."), Reply("It rains.")]
    assert not view.busy


def test_the_draft_of_a_turn_that_no_longer_runs_is_cleared() -> None:
    view = in_conversation()
    hear(view, started(), wire.DeltaFrame(turn="t1", text="Half"))
    view.hear(Lost("gone"))
    hear(view, welcome())
    assert view.draft is not None
    assert view.draft.rest == Reply("")
    assert view.busy  # the question is still open


def test_what_was_asked_elsewhere_waits_for_its_turn() -> None:
    view = in_conversation()
    hear(view, started(), events.User(content="theirs", id="m2"))
    assert view.take() == []
    assert view.queued == {"m2": Said("theirs", "elsewhere")}
    hear(view, closing("Mine."), wire.StartedFrame(turn="t2", answers=("m2",), attempt=1))
    assert view.take() == [Reply("Mine."), Said("theirs", "elsewhere")]


def test_a_message_that_joined_a_running_turn_stands_before_its_answer() -> None:
    view = in_conversation()
    hear(view, started(), events.User(content="and", id="m2"))
    hear(view, events.Assistant(content="Both.", turn="t1", answers=("m1", "m2"), finish="stop"))
    assert view.take() == [Said("and", "elsewhere"), Reply("Both.")]


def test_an_own_message_is_not_echoed() -> None:
    view = in_conversation()
    hear(view, events.User(content="question", id="m1"))
    assert view.take() == []


def test_frames_for_others_are_ignored() -> None:
    view = in_conversation()
    hear(view, wire.Result(id="x", ok=True, data=1), wire.HistoryPage(events=[], more=False))
    hear(
        view,
        wire.BlockFrame(turn="t1", index=0, html="<p>"),
        wire.DoneFrame(turn="t", outcome="failed", cursor=""),
    )
    view.hear(Received(b"{}", None))
    assert view.take() == []


def test_a_draft_takes_no_control_characters() -> None:
    draft = Draft("t1")
    draft.add("a\x1b")
    draft.add("[31mb")
    assert draft.rest == Reply("a[31mb")
    assert draft.finish("a\x1b[31mb\x07") == (Reply("a[31mb"), False)


def question(call_id: str = "c1", number: int = 1) -> wire.ApprovalFrame:
    return wire.ApprovalFrame(
        turn="t1", call_id=call_id, name="delete", args={"path": "\x1b"}, expires="", number=number
    )


def decided(call_id: str, *, allow: bool) -> events.System:
    return events.System(name="approval", turn="t1", call_id=call_id, allow=allow)


def test_several_questions_have_numbers() -> None:
    view = in_conversation()
    hear(view, started(), question(), question("c2", 2))
    shown = 'delete {"path": "\\u001b"} — may it run? '
    assert view.take()[-2:] == [Question(shown + "/yes or /no"), Question(shown + "/yes 2 or /no 2")]
    assert list(view.asked) == ["c1", "c2"]


def test_a_question_that_somebody_else_answered_is_over() -> None:
    view = in_conversation()
    hear(view, started(), question(), question("c2", 2))
    view.take()
    hear(view, decided("c1", allow=True), decided("c2", allow=False))
    assert view.take() == [Faint("delete may run."), Faint("delete may not run.")]
    assert not view.asked


def test_a_question_is_put_once_over_a_lost_connection() -> None:
    view = in_conversation()
    hear(view, started(), question(), question("c2", 2))
    view.take()
    view.hear(Lost("gone"))
    running = wire.RunningFrame(turn="t1", answers=("m1",), text="")
    hear(view, welcome(running), decided("c1", allow=True), question("c2", 2))
    assert list(view.asked) == ["c2"]
    assert not [part for part in view.take() if isinstance(part, Question)]
    hear(view, started(attempt=2))
    assert not view.asked
    hear(view, question("c2"))
    assert [part for part in view.take() if isinstance(part, Question)]


def test_a_steered_message_stands_under_its_question() -> None:
    view = in_conversation()
    hear(view, started(), events.Assistant(content="Looking.", turn="t1", finish="tool_calls"))
    view.say("m2", "The blue one")
    assert view.take() == [Reply("Looking.")]
    hear(view, events.System(name="steered", turn="t1", messages=("m2",)), closing("Found."))
    assert view.take() == [Said("The blue one"), Reply("Found.")]
