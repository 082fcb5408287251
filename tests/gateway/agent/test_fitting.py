"""What fits into a model's context: what is left out, and in which order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agent import estimate, fitting, prompt
from gateway.agent.fitting import Fitting, Gauge, fit
from gateway.agent.reply import Finish
from session.events import Assistant, ToolCall, ToolResult, Usage, User
from session.exchange import Exchange


def exchange(number: int, length: int = 100) -> Exchange:
    made = Exchange(f"t{number}", [User(content=f"{number}: " + "q" * length)])
    made.steps.append(Assistant(content="a" * length))
    return made


def working(*results: str) -> Exchange:
    """A turn on its way, with the results of its tools."""
    made = Exchange("now", [User(content="What do they say?")])
    for number, result in enumerate(results):
        call_id = f"c{number}"
        made.steps.append(ToolCall(name="read", args={"n": number}, call_id=call_id))
        made.steps.append(ToolResult(name="read", result=result, call_id=call_id))
    return made


def render(current: Exchange) -> Any:
    return lambda history: prompt.messages("Be kind.", history, current, current.steps, summary="Notes.")


PAST = [exchange(number) for number in range(10)]


def test_all_of_it_where_there_is_room() -> None:
    for room in (None, 100_000):
        fitted = fit(render(working()), PAST, [], room)
        assert fitted.history == PAST
        assert fitted.messages == render(working())(PAST)
        assert fitted.tokens == estimate.tokens(fitted.messages)


def test_the_oldest_exchanges_are_left_out_as_wholes() -> None:
    whole = fit(render(working()), PAST, [], None)
    fitted = fit(render(working()), PAST, [], whole.tokens - 1)
    assert fitted.history == PAST[1:]
    assert [message["role"] for message in fitted.messages[:2]] == ["system", "user"]
    assert fitted.messages[1]["content"].startswith("1: ")


@given(st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 4000))
def test_what_is_kept_is_the_newest_that_fits(lengths: list[int], room: int) -> None:
    past = [exchange(number, length) for number, length in enumerate(lengths)]
    fitted = fit(render(working()), past, [], room)
    assert fitted.history == past[len(past) - len(fitted.history) :]
    assert fitted.tokens <= room or not fitted.history
    if len(fitted.history) < len(past):
        one_more = past[len(past) - len(fitted.history) - 1 :]
        assert fit(render(working()), one_more, [], None).tokens > room


def test_what_is_asked_now_and_the_summary_are_always_in() -> None:
    fitted = fit(render(working("r")), PAST, [], 0)
    assert fitted.history == []
    assert [message["role"] for message in fitted.messages] == ["system", "user", "assistant", "tool"]
    assert fitted.messages[0]["content"].startswith("Be kind.")
    assert fitted.messages[0]["content"].endswith("Notes.")


def test_the_longest_results_are_cut_in_their_middle() -> None:
    long, other = "begin" + "x" * 60_000 + "end", "begin" + "y" * 30_000 + "end"
    fitted = fit(render(working(long, "short", other)), PAST, [], 6000)
    assert fitted.tokens <= 6000
    assert fitted.tokens > 5900
    results = [message["content"] for message in fitted.messages if message["role"] == "tool"]
    assert results[1] == "short"
    for cut in (results[0], results[2]):
        assert cut.startswith("begin")
        assert cut.endswith("end")
        assert "characters left out" in cut
    assert abs(len(results[0]) - len(results[2])) < 10


def test_a_text_beside_a_picture_is_cut_and_the_picture_is_not() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    message: dict[str, Any] = {"role": "user", "content": [{"type": "text", "text": "x" * 50_000}, picture]}
    [cut] = fitting.cut([message], 2000)
    assert len(cut["content"][0]["text"]) < 5000
    assert cut["content"][1] == picture
    assert len(message["content"][0]["text"]) == 50_000  # the transcript's own text is as it was


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 5000])
def test_a_mark_stands_where_something_is_missing(length: int) -> None:
    text = "abcdefghij" * 500
    shown = fitting.middle(text[:length], 100)
    assert ("left out" in shown) == (length > 100)
    if length > 100:
        assert f"{length - 100:,} characters" in shown


# -- how tokens are guessed ----------------------------------------------------------------------------


def test_a_model_is_believed_within_bounds() -> None:
    gauge = Gauge()
    before = gauge.tokens("m", 1000)
    gauge.learn("m", 1000, 2000)
    assert gauge.tokens("m", 500) == 1000
    assert gauge.tokens("another", 1000) == before
    gauge.learn("m", 1000, 9)  # a server that counts only what was not in its cache
    assert gauge.tokens("m", 1000) == 800
    gauge.learn("m", 1000, 900_000)
    assert gauge.tokens("m", 1000) == 4000


def test_the_reply_has_room() -> None:
    gauge = Gauge()
    gauge.learn("m", 1000, 1000)
    assert gauge.room("m", 8000) == 6000
    assert gauge.room("m", 200_000) == 200_000 - 8192


# -- one turn ------------------------------------------------------------------------------------------


def of_turn(history: list[Exchange], context: int | None, current: Exchange | None = None) -> Fitting:
    return Fitting(render(current or working()), history, [], ("m", context), Gauge())


def test_what_the_server_reports_counts_for_the_next_request() -> None:
    past = [exchange(number, 1000) for number in range(10)]
    turn = of_turn(past, 8000)
    turn.messages()
    shown = turn.use.room or 0
    assert turn.use.limit == 8000
    assert 0 < turn.use.tokens <= 6000
    turn.learn(Finish("stop", (), "served", Usage(input=turn.use.tokens * 2)))
    assert turn.use.tokens > 6000
    turn.messages()
    assert (turn.use.room or 0) < shown
    turn.learn(Finish("stop", (), "served", Usage(input=1, estimated=True)))  # nobody's word
    turn.learn(Finish("stop", (), "served", None))


def test_a_request_that_is_too_long_all_the_same_is_shortened_once() -> None:
    turn = of_turn(PAST[:5], None)
    turn.messages()
    assert turn.use.room is None
    assert turn.shorten()
    assert turn.use.room == 4
    assert [message["content"][:2] for message in turn.messages()[1::2]] == ["3:", "4:", "Wh"]
    assert not turn.shorten()


def test_long_results_are_halved_where_there_is_no_history() -> None:
    turn = of_turn([], None, working("x" * 40_000, "short"))
    turn.messages()
    assert turn.shorten()
    lengths = [len(message["content"]) for message in turn.messages() if message["role"] == "tool"]
    assert 20_000 < lengths[0] < 20_100
    assert lengths[1] == 5
    nothing = of_turn([], None)
    nothing.messages()
    assert not nothing.shorten()
