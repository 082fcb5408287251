"""A session's updates as the frames of one connection: as text, or rendered to HTML."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from channels import wire
from channels.base import Approval, Delta, Done, Running, Started, Stored, ToolActivity, Update
from session import events
from session.events import Assistant, Record, User

T = TypeVar("T")

_FIELD_KEPT = 64 * 1024  # characters of each field of an event that is too large for a frame


class BlockRenderer(Protocol):
    """One streamed reply, block by block: `channels.webchat.blocks.Blocks`."""

    def feed(self, text: str) -> None:
        """Take in more of the reply."""

    def changed(self) -> list[tuple[int, str]]:
        """The blocks whose rendering changed since the last call."""

    def html_blocks(self) -> list[str]:
        """All blocks so far."""


class Renderer(Protocol):
    """How text becomes HTML."""

    def render(self, text: str) -> str:
        """Sanitised HTML of a whole text."""

    def blocks(self) -> BlockRenderer:
        """A renderer for one streamed reply."""


class View(Protocol):
    """What a client asked to be shown."""

    async def event(self, record: Record) -> wire.EventItem:
        """One stored event."""

    async def running(self, running: Running | None) -> wire.RunningFrame | None:
        """The snapshot of a turn in progress; what follows continues it."""

    async def frames(self, update: Update) -> list[wire.ServerFrame]:
        """What a live update becomes at once."""

    async def due(self) -> list[wire.ServerFrame]:
        """What is due by now of what was held back."""

    @property
    def pause(self) -> float | None:
        """Seconds until something is due; None where nothing is held back."""


def _item(record: Record, html: str | None = None) -> wire.EventItem:
    line, truncated = _line(record), False
    if len(line) + len(html or "") > wire.MAX_SERVER_FRAME - 1024:
        line, html, truncated = _shortened(record), None, True
    return wire.EventItem(cursor=record.cursor, event=msgspec.Raw(line), html=html, truncated=truncated)


def _line(record: Record) -> bytes:
    event = record.event
    if isinstance(event, events.Assistant) and event.reasoning:
        return events.to_json(_said(event))
    return record.json()


def _said(event: events.Event) -> events.Event:
    """The event without what a model thought, which is for the transcript alone."""
    return replace(event, reasoning=None) if isinstance(event, events.Assistant) else event


def _shortened(record: Record) -> bytes:
    def cut(value: object) -> object:
        match value:
            case str():
                return value[:_FIELD_KEPT]
            case dict() | list():
                return events.to_json(value)[:_FIELD_KEPT].decode("utf-8", "ignore")
        return value

    fields = msgspec.to_builtins(_said(record.event))
    return events.to_json({name: cut(value) for name, value in fields.items()})


def _common(update: Update) -> list[wire.ServerFrame]:
    match update:
        case Started(turn, answers, attempt):
            return [wire.StartedFrame(turn=turn, answers=answers, attempt=attempt)]
        case ToolActivity(turn, call_id, name, state):
            return [wire.ToolFrame(turn=turn, call_id=call_id, name=name, state=state)]
        case Approval():
            return [_approval(update)]
        case Done(turn, outcome, cursor):
            return [wire.DoneFrame(turn=turn, outcome=outcome, cursor=cursor)]
    return []


def _approval(asked: Approval) -> wire.ApprovalFrame:
    line = events.to_json(asked.args)
    long = len(line) > _FIELD_KEPT
    return wire.ApprovalFrame(
        turn=asked.turn,
        call_id=asked.call_id,
        name=asked.name,
        args=line[:_FIELD_KEPT].decode("utf-8", "ignore") if long else asked.args,
        expires=asked.expires,
        number=asked.number,
        truncated=long,
    )


def event_frame(item: wire.EventItem) -> wire.EventFrame:
    """The item as a frame of its own."""
    return wire.EventFrame(cursor=item.cursor, event=item.event, html=item.html, truncated=item.truncated)


class TextView:
    """`render: "text"`: deltas as they come."""

    pause: float | None = None

    async def event(self, record: Record) -> wire.EventItem:
        return _item(record)

    async def running(self, running: Running | None) -> wire.RunningFrame | None:
        if running is None:
            return None
        return wire.RunningFrame(turn=running.turn, answers=running.answers, text=running.text)

    async def frames(self, update: Update) -> list[wire.ServerFrame]:
        match update:
            case Delta(turn, text):
                return [wire.DeltaFrame(turn=turn, text=text)]
            case Stored(record):
                return [event_frame(await self.event(record))]
        return _common(update)

    async def due(self) -> list[wire.ServerFrame]:
        return []


class HtmlView:
    """`render: "html"`: the unfinished end of the reply is rendered again at most ten times a second."""

    INTERVAL = 0.1  # seconds
    COSTLY = 4 * 1024  # characters of a text that is rendered in a thread: it may take milliseconds

    __slots__ = ("_blocks", "_clock", "_length", "_renderer", "_shown", "_turn", "_waiting")

    def __init__(self, renderer: Renderer, clock: Callable[[], float] = time.monotonic) -> None:
        self._renderer = renderer
        self._clock = clock
        self._turn = ""
        self._blocks: BlockRenderer | None = None
        self._waiting: list[str] = []
        self._length = 0  # characters of the reply so far
        self._shown = 0.0

    async def event(self, record: Record) -> wire.EventItem:
        event = record.event
        said = event.content if isinstance(event, User | Assistant) else ""
        if not said:
            return _item(record)
        return _item(record, await self._rendered(len(said), lambda: self._renderer.render(said)))

    async def _rendered(self, size: int, render: Callable[[], T]) -> T:
        return await asyncio.to_thread(render) if size > self.COSTLY else render()

    async def running(self, running: Running | None) -> wire.RunningFrame | None:
        if running is None:
            return None
        self._begin(running.turn)
        blocks = self._fed(running.text)
        html = await self._rendered(self._length, lambda: (blocks.changed(), blocks.html_blocks())[1])
        return wire.RunningFrame(turn=running.turn, answers=running.answers, blocks=html)

    async def frames(self, update: Update) -> list[wire.ServerFrame]:
        match update:
            case Delta(turn, text):
                if turn != self._turn:
                    self._begin(turn)
                self._waiting.append(text)
                return []
            case Stored(record):
                if isinstance(record.event, Assistant):
                    self._begin(self._turn)
                return [event_frame(await self.event(record))]
            case Started(turn) | Done(turn):
                self._begin(turn)
        return _common(update)

    def _begin(self, turn: str) -> None:
        self._turn, self._blocks, self._waiting, self._length = turn, None, [], 0

    def _fed(self, text: str) -> BlockRenderer:
        if self._blocks is None:
            self._blocks = self._renderer.blocks()
        self._blocks.feed(text)
        self._length += len(text)
        return self._blocks

    @property
    def pause(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._shown + self.INTERVAL - self._clock())

    async def due(self) -> list[wire.ServerFrame]:
        if not self._waiting or self._clock() < self._shown + self.INTERVAL:
            return []
        blocks = self._fed("".join(self._waiting))
        self._waiting = []
        changed = await self._rendered(self._length, blocks.changed)
        self._shown = self._clock()
        return [wire.BlockFrame(turn=self._turn, index=index, html=html) for index, html in changed]
