"""One event <-> one line."""

from __future__ import annotations

import json
import re
import zlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given

from session import events
from session.errors import BadEvent
from session.events import (
    Assistant,
    BadLine,
    Event,
    Record,
    System,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
    User,
    bare,
    closes,
    decode,
    encode,
    stamped,
    timestamp,
    to_json,
)
from tests.session import strategies

TS = "2026-02-25T10:05:00.000Z"

# docs/transcript.md: the examples, member by member.
DOCUMENTED: list[tuple[Event, str]] = [
    (
        System(name="session", content="agent:main:cli:local", format=1, ts=TS),
        '{"role":"system","name":"session","content":"agent:main:cli:local","format":1,"ts":"TS","crc":"CRC"}',
    ),
    (
        User(content="What time is it?", id="m1", ts=TS),
        '{"role":"user","content":"What time is it?","id":"m1","ts":"TS","crc":"CRC"}',
    ),
    (
        System(name="started", turn="t1", messages=("m1",), attempt=1, ts=TS),
        '{"role":"system","name":"started","turn":"t1","messages":["m1"],"attempt":1,"ts":"TS","crc":"CRC"}',
    ),
    (
        ToolCall(name="get_current_datetime", args={}, call_id="c1", turn="t1", ts=TS),
        '{"role":"tool_call","name":"get_current_datetime","args":{},"call_id":"c1","turn":"t1",'
        '"ts":"TS","crc":"CRC"}',
    ),
    (
        ToolResult(name="get_current_datetime", result="10:05 AM", call_id="c1", ok=True, turn="t1", ts=TS),
        '{"role":"tool_result","name":"get_current_datetime","result":"10:05 AM","call_id":"c1","ok":true,'
        '"turn":"t1","ts":"TS","crc":"CRC"}',
    ),
    (
        Assistant(
            content="It's 10:05 AM.",
            turn="t1",
            answers=("m1",),
            finish="stop",
            model="m",
            usage=Usage(9, 5),
            ts=TS,
        ),
        '{"role":"assistant","content":"It\'s 10:05 AM.","turn":"t1","answers":["m1"],"finish":"stop",'
        '"model":"m","usage":{"input":9,"output":5},"ts":"TS","crc":"CRC"}',
    ),
]


def canonical(value: Any) -> str:
    """Tells 1 from 1.0 and true, which `==` does not."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize(("event", "line"), DOCUMENTED)
def test_documented_lines_are_written_byte_for_byte(event: Event, line: str) -> None:
    written = encode(event)
    expected = line.replace('"TS"', f'"{TS}"').encode().removesuffix(b',"crc":"CRC"}')
    assert written == expected + b',"crc":"%08x"}\n' % zlib.crc32(expected)
    assert decode(written[:-1]) == event


@given(strategies.events)
def test_every_event_survives_as_json_itself_would_carry_it(event: Event) -> None:
    line = encode(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    line.decode("utf-8")
    oracle = json.loads(json.dumps(msgspec.to_builtins(event)))
    read = decode(line[:-1])
    assert type(read) is type(event)
    assert canonical(msgspec.to_builtins(read)) == canonical(oracle)


@given(strategies.events)
def test_a_line_is_json_for_everybody_and_its_checksum_is_the_last_member(event: Event) -> None:
    line = encode(event)[:-1]
    found = re.search(rb',"crc":"([0-9a-f]{8})"}\Z', line)
    assert found
    assert int(found[1], 16) == zlib.crc32(line[: found.start()])
    members = json.loads(line)
    assert next(iter(members)) == "role"
    assert list(members)[-1] == "crc"
    shown = json.loads(Record("", event, line).json())
    del members["crc"]
    assert canonical(shown) == canonical(members)


@pytest.mark.parametrize("text", ["日本語", "😀", "Ünï", "e\u0301", "\u2028", "\u200f", "\ufffd\ufeff"])
def test_text_stays_readable_for_cat_and_grep(text: str) -> None:
    assert text.encode() in encode(User(content=text))


def test_only_what_utf_8_cannot_carry_is_escaped() -> None:
    line = encode(ToolCall(name="x", args={"key \ud800": ["日本\udc00", 10**30, 1.5, None, True]}))
    assert "日本\\udc00".encode() in line
    assert b"key \\ud800" in line
    assert decode(line[:-1]) == ToolCall(
        name="x", args={"key \ud800": ["日本\udc00", 10**30, 1.5, None, True]}
    )


@pytest.mark.parametrize("event", [event for event, _ in DOCUMENTED] + [User(content="a\ud800é\n", id="m")])
def test_every_changed_byte_is_noticed_or_changes_nothing(event: Event) -> None:
    line = encode(event)[:-1]
    noticed = 0
    for place in range(len(line)):
        for change in range(1, 256):
            changed = line[:place] + bytes([line[place] ^ change]) + line[place + 1 :]
            try:
                assert decode(changed) == event
            except BadLine:
                noticed += 1
    body = len(line) - len(',"crc":"00000000"}')
    assert noticed >= body * 255


@given(strategies.events)
def test_every_beginning_of_a_line_is_noticed(event: Event) -> None:
    line = encode(event)[:-1]
    for size in range(len(line)):
        with pytest.raises(BadLine):
            decode(line[:size])


def test_every_field_survives_beside_a_surrogate() -> None:
    """Such a line is read another way, which must know the same names."""
    heard = System(name="context", sender="Ann", content="\ud800", part=1, final=False)
    assert b'"from":"Ann"' in encode(heard)
    assert decode(encode(heard)[:-1]) == heard


def test_lines_of_other_programs_are_accepted() -> None:
    assert decode(b'{"role":"user","content":"hi"}') == User(content="hi")
    assert decode(b'  { "content" : "hi" , "role":"user" } \r') == User(content="hi")
    assert decode(b'{"role":"tool_call","name":"f","args":"{\\"a\\":1}"}') == ToolCall(
        name="f", args='{"a":1}'
    )
    assert decode(b'{"role":"tool_result","result":[1]}') == ToolResult(result=[1])


def test_fields_that_are_not_known_are_passed_over() -> None:
    line = b'{"role":"user","mood":{"a":[1]},"content":"hi","crc32":"x","\\ud800":1,"id":"m"}'
    assert decode(line) == User(content="hi", id="m")


@pytest.mark.parametrize(
    "line",
    [
        b'{"role":"robot","x":1}',
        b'{"x":1}',
        b"{}",
        b'{"role":5}',
        b'{"role":"\\ud800","x":1}',
        b'{"role":"user"}',
        b'{"role":"user","content":[{"type":"text"}]}',
        b'{"role":"assistant","content":"","usage":{"\\ud800":1,"input":"\\ud800"}}',
        b'{"role":"assistant","content":"","finish":"exploded"}',
    ],
)
def test_objects_that_are_none_of_ours_are_kept(line: bytes) -> None:
    event = decode(line)
    assert event == Unknown(data=json.loads(line))
    assert closes(event) is None
    assert Record("", event, line).json() == line


def test_an_unknown_event_keeps_its_time_and_hides_its_checksum() -> None:
    body = b'{"role":"robot","ts":"2026"'
    line = body + b',"crc":"%08x"}' % zlib.crc32(body)
    assert decode(line) == Unknown(data={"role": "robot", "ts": "2026"}, ts="2026")
    assert bare(line) == body + b"}"
    assert decode(b'{"role":"robot","ts":7}').ts == ""


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'"user"',
        b"7",
        b"\0\0\0\0",
        b'{"role":"user","content":"a"',
        b'{"role":"user","content":"a"}{"role":"user","content":"b"}',
        b'{"role":"user","content":"a\xff"}',
        b'{"role":"user","content":"a","\xff":1}',
        b'{"role":"robot","content":"\xff"}',
        b'{"role":"user","content":"\xed\xa0\x80"}',  # a surrogate in raw bytes is not UTF-8
        '{"role":"user","content":"a"}'.encode("utf-16-le"),
        b'{"role":"user","content":"a\0b"}',
        b'{"role":"tool_call","name":"x","args":NaN}',
        b'{"role":"tool_call","name":"\\ud800","args":NaN}',
        b'{"role":"robot","x":Infinity}',
        b'{"role":"robot","x":-Infinity}',
        b'{"role":"tool_call","name":"x","args":1' + b"0" * 5000 + b"}",
    ],
)
def test_what_is_no_event_is_a_bad_line(line: bytes) -> None:
    with pytest.raises(BadLine):
        decode(line)


@pytest.mark.parametrize("depth", [900, 1_000, 1_500, 100_000])
@pytest.mark.parametrize(
    "head", [b'{"role":"tool_call","name":"x"', b'{"role":"tool_call","name":"\\ud800"', b'{"z":1']
)
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_an_event_or_a_bad_line(depth: int, head: bytes, begin: bytes, end: bytes) -> None:
    line = head + b',"args":' + begin * depth + b"1" + end * depth + b"}"
    try:
        decode(line)
    except BadLine:
        assert depth >= 900


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "args",
    [deep(200_000), [deep(200_000), "\ud800"], object(), {(1, 2): 3}, {"\ud800": float("nan")}, 10**5_000],
    ids=["deep", "deep and a surrogate", "object", "tuple as key", "NaN", "huge"],
)
def test_what_json_has_no_form_for_is_refused_by_its_own_error(args: Any) -> None:
    with pytest.raises(BadEvent, match="ToolCall"):
        encode(ToolCall(name="x", args=args))


def test_a_checksum_is_one_only_as_the_last_member_of_eight_digits() -> None:
    quoted = User(content='x","crc":"00000000"}')
    assert decode(encode(quoted)[:-1]) == quoted
    assert decode(b'{"role":"user","content":"a","crc":"0000000"}') == User(content="a")
    assert decode(b'{"role":"user","crc":"00000000","content":"a"}') == User(content="a")
    with pytest.raises(BadLine, match="checksum"):
        decode(b'{"role":"user","content":"a","crc":"00000000"}')


def test_json_without_a_checksum_is_shown_as_it_is() -> None:
    assert bare(b'{"role":"user","content":"a"}') == b'{"role":"user","content":"a"}'
    assert bare(b"") == b""


def test_times_are_utc_with_milliseconds() -> None:
    berlin = datetime(2026, 2, 25, 11, 5, 0, 123_999, tzinfo=timezone(timedelta(hours=1)))
    assert timestamp(berlin) == "2026-02-25T10:05:00.123Z"
    assert timestamp(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", events.now())


def test_an_event_is_stamped_once() -> None:
    event = stamped(User(content="a", id="m"), lambda: TS)
    assert event == User(content="a", id="m", ts=TS)
    assert stamped(event, lambda: "later") is event


def test_what_closes_a_turn() -> None:
    assert closes(Assistant(content="", answers=("m1", "m2"))) == ("m1", "m2")
    assert closes(System(name="turn_failed", answers=("m1",))) == ("m1",)
    assert closes(Assistant(content="one moment", finish="tool_calls")) is None
    assert closes(System(name="started", answers=("m1",))) is None
    assert closes(User(content="a")) is None


def test_plain_values_are_encoded_too() -> None:
    assert to_json({"a": ["é", "\udfff"]}) == '{"a":["é","\\udfff"]}'.encode()
