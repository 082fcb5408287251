"""The frames: strict towards clients, lenient towards the gateway's later versions."""

import json
from typing import Any

import msgspec
import pytest

from channels import wire
from channels.errors import Refused
from session import events

GOOD: list[tuple[dict[str, Any], wire.ClientFrame]] = [
    ({"type": "hello", "protocol": 1}, wire.Hello(protocol=1)),
    (
        {"type": "hello", "protocol": 2, "session": "s", "after": "1.a", "render": "html", "agent": "main"},
        wire.Hello(protocol=2, session="s", after="1.a", render="html", agent="main"),
    ),
    ({"type": "message", "id": "a-B_9", "text": "x"}, wire.Message(id="a-B_9", text="x")),
    ({"type": "message", "id": "a", "text": "\x00 \ud800 😀"}, wire.Message(id="a", text="\x00 \ud800 😀")),
    ({"type": "stop", "later": "members are ignored"}, wire.Stop()),
    ({"type": "retry", "id": "a", "of": "b"}, wire.Retry(id="a", of="b")),
    ({"type": "history"}, wire.History()),
    ({"type": "history", "before": "1.a", "limit": 200}, wire.History(before="1.a", limit=200)),
    ({"type": "approve", "call_id": "c", "allow": True}, wire.Approve(call_id="c", allow=True)),
    ({"type": "control", "id": "a", "verb": "status"}, wire.ControlFrame(id="a", verb="status")),
]


@pytest.mark.parametrize(("sent", "frame"), GOOD)
def test_what_a_client_may_send(sent: dict[str, Any], frame: wire.ClientFrame) -> None:
    assert wire.parse(json.dumps(sent)) == frame
    assert wire.parse(json.dumps(sent).encode()) == frame


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bad_json"),
        (b"hello", "bad_json"),
        (b'{"type":"stop"', "bad_json"),
        (b'{"type":"stop"} {"type":"stop"}', "bad_json"),
        (b'{"type":"stop","type":"hello"}', "bad_json"),
        (b'{"type":"stop","x":{"a":1,"a":2}}', "bad_json"),
        (b'{"type":"stop","x":NaN}', "bad_json"),
        (b'{"type":"stop","x":-Infinity}', "bad_json"),
        (b'{"type":"stop","x":' + b"1" * 5000 + b"}", "bad_json"),
        (b'{"type":"stop","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad_json"),
        (b'{"type":"stop","x":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}", "bad_json"),
        (b'{"type":"message","id":"a","text":"\x00"}', "bad_json"),
        (b'{"type":"message","id":"a","text":"\xff"}', "bad_utf8"),
        (b'{"type":"message","id":"a","text":"\xed\xa0\x80"}', "bad_utf8"),
        ('{"type":"stop"}'.encode("utf-16"), "bad_utf8"),
        (b"[]", "bad_frame"),
        (b"1e400", "bad_frame"),
        (b"null", "bad_frame"),
        (b"{}", "bad_frame"),
        (b'{"type":"nope"}', "bad_frame"),
        (b'{"type":"\\ud800"}', "bad_frame"),
        (b'{"\\ud800":1,"type":"stop"}', "bad_frame"),
        (b'{"type":"welcome"}', "bad_frame"),
        (b'{"type":"hello"}', "bad_frame"),
        (b'{"type":"hello","protocol":true}', "bad_frame"),
        (b'{"type":"hello","protocol":1e400}', "bad_frame"),
        (b'{"type":"hello","protocol":1,"render":"pdf"}', "bad_frame"),
        (b'{"type":"hello","protocol":1,"client":"' + b"x" * 201 + b'"}', "bad_frame"),
        (b'{"type":"message","id":"","text":"x"}', "bad_frame"),
        (b'{"type":"message","id":"a b","text":"x"}', "bad_frame"),
        (b'{"type":"message","id":"a\\n","text":"x"}', "bad_frame"),
        (b'{"type":"message","id":"\\ud800","text":"x"}', "bad_frame"),
        (b'{"type":"message","id":"' + b"a" * 65 + b'","text":"x"}', "bad_frame"),
        (b'{"type":"message","id":"a"}', "bad_frame"),
        (b'{"type":"message","id":"a","text":1}', "bad_frame"),
        (b'{"type":"history","limit":0}', "bad_frame"),
        (b'{"type":"history","limit":201}', "bad_frame"),
        (b'{"type":"history","limit":' + b"9" * 100 + b"}", "bad_frame"),
        (b'{"type":"stop"}' + b" " * wire.MAX_CLIENT_FRAME, "frame_too_large"),
    ],
)
def test_what_a_client_may_not_send(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        wire.parse(data)
    assert refused.value.code == code
    assert len(refused.value.public) < 300
    refused.value.public.encode()


def _item(content: str) -> wire.EventItem:
    return wire.EventItem(
        cursor="1.a", event=msgspec.Raw(events.to_json({"role": "user", "content": content}))
    )


@pytest.mark.parametrize("text", ["plain", "😀 ü", "\ud800 lone", "\x00\n\u2028"])
def test_clients_read_what_the_gateway_writes(text: str) -> None:
    item = _item(text)
    frames: list[wire.ServerFrame] = [
        wire.DeltaFrame(turn="t", text=text),
        wire.EventFrame(cursor="1.a", event=item.event),
        wire.HistoryPage(events=[item, item], more=True),
        wire.Welcome(
            session_id="agent:main:cli:local",
            agent="main",
            model="demo",
            turns=0,
            running=wire.RunningFrame(turn="t", answers=("m1",), text=text),
        ),
        wire.Notice(text=text),
        wire.Error(code="bad_json", message=text),
        wire.Result(id="a", ok=True, data={"x": [text]}),
    ]
    for frame in frames:
        line = wire.encode(frame)
        assert b"\n" not in line
        assert wire.decode(line) == frame
        json.loads(line)


def test_clients_pass_over_what_they_do_not_know() -> None:
    frame = wire.decode(b'{"type":"ack","id":"a","cursor":"1.a","queued":0,"later":{"version":[2]}}')
    assert frame == wire.Ack(id="a", cursor="1.a", queued=0)
    for bad in (b"{", b"[]", b'{"type":"later"}', b'{"type":"event","event":["\\ud800"]}'):
        with pytest.raises(msgspec.DecodeError):
            wire.decode(bad)


@pytest.mark.parametrize("bad", [b'{"type":"notice","text":"\xff"}', b'{"type":' + b"[" * 100_000])
def test_clients_get_one_kind_of_error_for_bytes_that_are_no_frame(bad: bytes) -> None:
    with pytest.raises(msgspec.DecodeError, match="not a frame"):
        wire.decode(bad)


def test_what_is_not_set_is_left_out_but_in_the_welcome() -> None:
    assert wire.encode(wire.Notice(text="x")) == b'{"type":"notice","text":"x"}'
    welcome = json.loads(
        wire.encode(wire.Welcome(session_id="s", agent="a", model="m", turns=0, running=None))
    )
    assert welcome["running"] is None
    assert welcome["protocol"] == 1
    assert "reset" not in welcome
    assert "session" not in welcome
