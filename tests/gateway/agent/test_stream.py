import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agent.reply import Call, Finish
from gateway.agent.stream import Decoder
from session.events import Usage
from tests.fakes.openai_behaviours import CallTools, Say, WholeJson, chunk, encoded

LIMIT = 1024 * 1024


def read(*reads: bytes, limit: int = LIMIT) -> tuple[str, Decoder]:
    """All text of a reply, checking that no piece of it is torn."""
    decoder = Decoder(limit)
    texts = [decoder.feed(data) for data in reads]
    texts.append(decoder.end())
    for text in texts:
        text.encode()
    return "".join(texts), decoder


def body(*events: Any) -> bytes:
    return b"".join(encoded(event) for event in events)


def ending(*deltas: dict[str, Any], reason: str = "stop") -> Finish:
    _, decoder = read(body(*(chunk(delta) for delta in deltas), chunk({}, reason), "[DONE]"))
    assert decoder.fault is None
    return decoder.finish("label")


SAMPLES = {
    "plain": body(*Say("Hallo, wörld! 日本語 👩‍👩‍👧 done.", size=3).events()),
    "crlf": body(*Say("one\ntwo\r\nthree é").events()).replace(b"\n\n", b"\r\n\r\n"),
    "comments": b": hello\n\n"
    + body(*Say("a🌍b", size=1).events()).replace(b"\n\n", b"\n\n: ping\nid: 7\n\n"),
    "no space": body(*Say("tight ü").events()).replace(b"data: ", b"data:"),
    "no [DONE], no last newline": body(*Say("and out 😀", done=False).events()).rstrip(),
    "tools": body(*CallTools([("now", {"zone": "Asia/Tōkyō"}), ("b", '{"x":')], text="so: 时").events()),
    "whole": json.dumps(WholeJson("all at ōnce", [("f", {"a": 1})]).body(), ensure_ascii=False).encode(),
    "whole, indented, with a mark": b"\xef\xbb\xbf" + json.dumps(WholeJson("x").body(), indent=2).encode(),
    "escaped halves": b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"\\ude00b"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "garbage after text": body(chunk({"content": "good"}))
    + b"data: {bad\n\n"
    + body(chunk({"content": "no"})),
    "html": b"<html>\n<body>no</body>\n</html>\n",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_split_in_two_reads_the_same(name: str) -> None:
    data = SAMPLES[name]
    text, decoder = read(data)
    for at in range(len(data) + 1):
        split_text, split = read(data[:at], data[at:])
        assert split_text == text
        assert (split.fault is None, split.done) == (decoder.fault is None, decoder.done)
        assert split.finish("x") == decoder.finish("x")


@given(name=st.sampled_from(sorted(SAMPLES)), cuts=st.lists(st.integers(0, 3000), max_size=60))
def test_any_split_reads_the_same(name: str, cuts: list[int]) -> None:
    data = SAMPLES[name]
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    split_text, split = read(*(data[a:b] for a, b in itertools.pairwise(edges)))
    text, decoder = read(data)
    assert split_text == text
    assert split.finish("x") == decoder.finish("x")


@given(text=st.text(min_size=1), size=st.integers(1, 5), cut=st.integers(1, 40))
def test_any_text_arrives_unchanged(text: str, size: int, cut: int) -> None:
    data = body(*Say(text, size=size).events())
    got, decoder = read(*(data[at : at + cut] for at in range(0, len(data), cut)))
    assert got == text
    assert decoder.finish("x") == Finish("stop", (), "fake-1", Usage(9, 5))


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    read(data)
    read(b"data: " + data + b"\n")


def test_the_text_of_one_read_is_one_piece() -> None:
    assert Decoder(LIMIT).feed(body(chunk({"content": "a"}), chunk({"content": "b"}))) == "ab"


def test_halves_of_a_pair_are_joined_and_a_lone_one_is_replaced() -> None:
    assert read(SAMPLES["escaped halves"])[0] == "a😀b"
    lone = b"".join(
        b'data: {"choices":[{"delta":{"content":"%b"}}]}\n' % text for text in (b"a\\udc00b", b"\\ud800")
    )
    assert read(lone)[0] == "a\ufffdb\ufffd"


@pytest.mark.parametrize(
    "line",
    [
        b"data: {bad",
        b'data: {"choices": 5}',
        b'data: "text"',
        b"data: \xff{}",
        b"data: " + b"[" * 100_000,
        b"oops",
    ],
)
def test_garbage_is_a_fault_and_keeps_the_text_before_it(line: bytes) -> None:
    text, decoder = read(
        body(chunk({"content": "kept"})) + line + b"\n\n" + body(chunk({"content": "dropped"}))
    )
    assert text == "kept"
    assert decoder.fault is not None


@pytest.mark.parametrize("prefix", [b"data: ", b"{"])
def test_a_line_without_end_is_bounded(prefix: bytes) -> None:
    decoder = Decoder(1000)
    for _ in range(20):
        decoder.feed(prefix + b"x" * 90)
    assert decoder.fault is not None
    assert len(b"".join(decoder._unread)) < 2000


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x" * 100_000},
        {"content": " " * 100_000},
        {"reasoning_content": "x" * 100_000},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "x" * 100_000}}]},
    ],
    ids=["text", "white space", "thoughts", "arguments"],
)
def test_a_reply_without_end_is_bounded(delta: dict[str, Any]) -> None:
    decoder = Decoder(LIMIT)
    data = body(chunk(delta))
    for _ in range(100):
        decoder.feed(data)
    assert decoder.fault is not None
    assert "characters" in decoder.fault
    assert decoder.written < 5_000_000


def test_calls_without_number_are_bounded() -> None:
    calls = [{"index": number, "function": {"name": "f", "arguments": ""}} for number in range(20_000)]
    _, decoder = read(body(chunk({"tool_calls": calls})))
    assert decoder.fault == "more than 64 tool calls in one reply"
    assert len(decoder.finish("label").calls) <= 64


def test_an_error_object_is_kept_apart() -> None:
    for data in (body({"error": {"message": "no"}}), b'{"error": {"message": "no"}}'):
        assert read(data)[1].error == {"message": "no"}
    assert read(body({"error": "no"}))[1].error == {"message": "no"}
    assert read(b': x\n{"error": "no"}\n')[1].error == {"message": "no"}


def test_reasoning_is_progress_and_no_text() -> None:
    text, decoder = read(body(chunk({"reasoning_content": "hm"}), chunk({"reasoning": "hm"})))
    assert (text, decoder.chunks, decoder.finished) == ("", 2, False)


def test_content_in_parts_gives_its_text_alone() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "ok"},
    ]
    assert read(body(chunk({"content": parts})))[0] == "ok"


def test_a_refusal_is_text() -> None:
    assert read(body(chunk({"refusal": "I won't."})))[0] == "I won't."


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "filtered"),
        ("max_tokens", "length"),
        ("tool_calls", "stop"),  # without any call
        ("eos_token", "stop"),
    ],
)
def test_reasons(said: str, meant: str) -> None:
    assert ending({"content": "x"}, reason=said).reason == meant


def part(**fields: Any) -> dict[str, Any]:
    return {"tool_calls": [fields]}


@pytest.mark.parametrize("reason", ["tool_calls", "stop", "function_call"])
def test_calls_are_put_together(reason: str) -> None:
    finish = ending(
        part(index=0, id="a", function={"name": "f", "arguments": ""}),
        part(index=0, function={"arguments": '{"x"'}),
        part(index=1, id="b", function={"name": "g", "arguments": None}),
        part(index=0, function={"arguments": ":1}"}),
        reason=reason,
    )
    assert (finish.reason, finish.calls) == ("tool_calls", (Call("f", '{"x":1}', "a"), Call("g", "", "b")))


def test_calls_without_index_or_under_the_same_index_stay_apart() -> None:
    same = ending(
        part(index=0, id="a", function={"name": "f"}), part(index=0, id="b", function={"name": "g"})
    )
    none = ending(
        part(id="a", function={"name": "f"}), part(id="b", function={"name": "g", "arguments": "{}"})
    )
    bare = ending(
        part(function={"name": "f", "arguments": "{"}),
        part(function={"arguments": "}"}),
        part(function={"name": "g"}),
    )
    assert [call.name for call in same.calls] == ["f", "g"]
    assert none.calls == (Call("f", "", "a"), Call("g", "{}", "b"))
    assert [(call.name, call.arguments) for call in bare.calls] == [("f", "{}"), ("g", "")]
    assert all(call.id for call in bare.calls)


def test_a_repeated_name_and_arguments_as_an_object() -> None:
    again = ending(
        part(index=0, id="a", function={"name": "f"}),
        part(index=0, id="a", function={"name": "f", "arguments": "{}"}),
    )
    assert again.calls == (Call("f", "{}", "a"),)
    assert ending(part(index=0, id="a", function={"name": "f", "arguments": {"x": 1}})).calls == (
        Call("f", '{"x": 1}', "a"),
    )


def test_the_old_function_call() -> None:
    [call] = ending(
        {"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}
    ).calls
    assert (call.name, call.arguments) == ("f", "{}")


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_calls_that_were_cut_short_are_dropped(reason: str) -> None:
    assert (
        ending(part(index=0, id="a", function={"name": "f", "arguments": '{"x'}), reason=reason).calls == ()
    )


@pytest.mark.parametrize("usage", [{"prompt_tokens": "many"}, [], {"prompt_tokens": None}, "x", "\ud800"])
def test_strange_usage_loses_nothing(usage: Any) -> None:
    text, decoder = read(body(chunk({"content": "x"}), {**chunk({}, "stop"), "usage": usage}, "[DONE]"))
    assert (text, decoder.finish("l").usage) == ("x", None)


def test_the_label_stands_in_for_an_unnamed_model() -> None:
    _, decoder = read(
        b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    assert decoder.finish("label").model == "label"


THOUGHTS = [
    [chunk({"reasoning_content": "hm, "}), chunk({"reasoning_content": "ok"}), chunk({"content": "Yes."})],
    [chunk({"reasoning": "hm, ok", "content": None}), chunk({"content": "Yes."})],
    [chunk({"content": "<think>hm, "}), chunk({"content": "ok</think>\n\nYes."})],
    [chunk({"content": "<th"}), chunk({"content": "ink>hm, ok</thi"}), chunk({"content": "nk>Yes."})],
]


@pytest.mark.parametrize("thoughts", THOUGHTS)
@pytest.mark.parametrize("keep", [True, False])
def test_thoughts_are_no_text_and_kept_where_that_is_asked_for(
    thoughts: list[dict[str, Any]], keep: bool
) -> None:
    data = body(*thoughts, chunk({}, "stop"), "[DONE]")
    for at in range(0, len(data), 7):
        decoder = Decoder(LIMIT, keep_reasoning=keep)
        text = decoder.feed(data[:at]) + decoder.feed(data[at:]) + decoder.end()
        finish = decoder.finish("x")
        assert (text, finish.reason, finish.reasoning) == ("Yes.", "stop", "hm, ok" if keep else "")
        assert decoder.written == len("hm, okYes.")


def test_strange_reasoning_loses_nothing() -> None:
    strange = [chunk({"reasoning": {"a": [1]}}), chunk({"reasoning_content": 5, "content": "Yes."})]
    text, decoder = read(body(*strange, chunk({}, "stop"), "[DONE]"))
    assert (text, decoder.fault) == ("Yes.", None)


def test_a_beginning_that_might_have_been_a_thought_is_shown_at_the_end() -> None:
    for beginning in ("<", "<think", "  "):
        text, _ = read(body(chunk({"content": beginning}), chunk({}, "stop"), "[DONE]"))
        assert text == beginning


def test_all_that_was_written_is_counted() -> None:
    data = body(chunk({"content": "four"}), part_of_call("f", "{}12"), chunk({}, "stop"))
    assert read(data)[1].written == 8


def part_of_call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return chunk({"tool_calls": [{"index": 0, "id": "a", "function": function}]})
