"""Updates as frames: as text, and rendered."""

import json
from typing import Any

import msgspec
import pytest

from channels import wire
from channels.base import Approval, Delta, Done, Running, Started, Stored, ToolActivity
from channels.view import HtmlView, TextView
from session import events
from session.events import Assistant, Event, Record, System, ToolResult, User


def _record(event: Event) -> Record:
    return Record("1.a", event, events.encode(event)[:-1])


class _Blocks:
    """Paragraphs, each in angle brackets."""

    def __init__(self) -> None:
        self._text = ""
        self._shown: list[str] = []

    def feed(self, text: str) -> None:
        self._text += text

    def html_blocks(self) -> list[str]:
        return [f"<{block}>" for block in self._text.split("\n\n")]

    def changed(self) -> list[tuple[int, str]]:
        blocks = self.html_blocks()
        old = self._shown + [""] * len(blocks)
        self._shown = blocks
        return [(index, html) for index, html in enumerate(blocks) if old[index] != html]


class _Renderer:
    def render(self, text: str) -> str:
        return f"<{text}>"

    def blocks(self) -> _Blocks:
        return _Blocks()


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


COMMON = [
    (Started("t", ("m1",), 2), wire.StartedFrame(turn="t", answers=("m1",), attempt=2)),
    (ToolActivity("t", "c", "x", "failed"), wire.ToolFrame(turn="t", call_id="c", name="x", state="failed")),
    (
        Approval("t", "c", "x", {"a": 1}, "2026-01-01T00:00:00.000Z", 2),
        wire.ApprovalFrame(
            turn="t", call_id="c", name="x", args={"a": 1}, expires="2026-01-01T00:00:00.000Z", number=2
        ),
    ),
    (
        Approval("t", "c", "x", {"a": "x" * 65536}, "2026-01-01T00:00:00.000Z"),
        wire.ApprovalFrame(
            turn="t",
            call_id="c",
            name="x",
            args='{"a":"' + "x" * 65530,
            expires="2026-01-01T00:00:00.000Z",
            truncated=True,
        ),
    ),
    (Done("t", "failed", "1.a"), wire.DoneFrame(turn="t", outcome="failed", cursor="1.a")),
]


@pytest.mark.parametrize(("update", "frame"), COMMON)
async def test_what_both_views_show_alike(update: Any, frame: wire.ServerFrame) -> None:
    for view in (TextView(), HtmlView(_Renderer())):
        assert await view.frames(update) == [frame]
        assert await view.due() == []
        assert view.pause is None


async def test_text_is_shown_at_once() -> None:
    view = TextView()
    assert await view.frames(Delta("t", "a")) == [wire.DeltaFrame(turn="t", text="a")]
    assert await view.due() == []
    record = _record(User(content="Hello", id="m1"))
    [frame] = await view.frames(Stored(record))
    assert isinstance(frame, wire.EventFrame)
    assert json.loads(bytes(frame.event)) == {"role": "user", "content": "Hello", "id": "m1"}
    assert frame.html is None
    running = await view.running(Running("t", ("m1",), "so far"))
    assert running == wire.RunningFrame(turn="t", answers=("m1",), text="so far")
    assert await view.running(None) is None


async def test_html_is_rendered_at_most_ten_times_a_second() -> None:
    clock = _Clock()
    view = HtmlView(_Renderer(), clock)
    await view.frames(Started("t", ("m1",), 1))
    assert await view.frames(Delta("t", "One")) == []
    assert view.pause == 0.0
    assert await view.due() == [wire.BlockFrame(turn="t", index=0, html="<One>")]
    await view.frames(Delta("t", " and\n\ntwo"))
    assert await view.due() == []
    assert view.pause == pytest.approx(HtmlView.INTERVAL)
    clock.now += HtmlView.INTERVAL
    assert view.pause == 0.0
    assert await view.due() == [
        wire.BlockFrame(turn="t", index=0, html="<One and>"),
        wire.BlockFrame(turn="t", index=1, html="<two>"),
    ]
    assert view.pause is None


async def test_blocks_begin_anew_after_each_stored_answer() -> None:
    clock = _Clock()
    view = HtmlView(_Renderer(), clock)
    await view.frames(Started("t", ("m1",), 1))
    await view.frames(Delta("t", "Let me see."))
    [frame] = await view.frames(Stored(_record(Assistant(content="Let me see.", finish="tool_calls"))))
    assert isinstance(frame, wire.EventFrame)
    assert frame.html == "<Let me see.>"
    assert await view.due() == []  # what waited is in the event
    await view.frames(Delta("t", "It is late."))
    assert await view.due() == [wire.BlockFrame(turn="t", index=0, html="<It is late.>")]
    clock.now += 1
    await view.frames(Started("t", ("m1",), 2))
    await view.frames(Delta("t", "Again"))
    assert await view.due() == [wire.BlockFrame(turn="t", index=0, html="<Again>")]


async def test_the_snapshot_is_continued() -> None:
    view = HtmlView(_Renderer(), _Clock())
    running = await view.running(Running("t", ("m1",), "One\n\ntw"))
    assert running == wire.RunningFrame(turn="t", answers=("m1",), blocks=["<One>", "<tw>"])
    await view.frames(Delta("t", "o"))
    assert await view.due() == [wire.BlockFrame(turn="t", index=1, html="<two>")]


async def test_a_lot_of_text_is_rendered_off_the_loop_with_the_same_result() -> None:
    view = HtmlView(_Renderer(), _Clock())
    text = "x" * (HtmlView.COSTLY + 1)
    await view.frames(Delta("t", text))
    assert await view.due() == [wire.BlockFrame(turn="t", index=0, html=f"<{text}>")]


async def test_only_what_people_and_the_agent_say_is_rendered() -> None:
    view = HtmlView(_Renderer())
    assert (await view.event(_record(User(content="a")))).html == "<a>"
    assert (await view.event(_record(Assistant(content="")))).html is None
    assert (await view.event(_record(System(name="note", content="a")))).html is None


@pytest.mark.parametrize(
    "event",
    [
        User(content="😀" * 400_000),
        Assistant(content="\ud800" * 400_000),
        ToolResult(name="x", result={"deep": ["y" * 2_000_000]}),
        System(name="setting", value=["z" * 2_000_000]),
    ],
)
async def test_an_event_that_is_too_large_for_a_frame_is_cut(event: Event) -> None:
    for view in (TextView(), HtmlView(_Renderer())):
        item = await view.event(_record(event))
        assert item.truncated
        frame = wire.EventFrame(cursor=item.cursor, event=item.event, html=item.html, truncated=True)
        assert len(wire.encode(frame)) <= wire.MAX_SERVER_FRAME
        assert json.loads(bytes(item.event))["role"] == msgspec.to_builtins(event)["role"]
