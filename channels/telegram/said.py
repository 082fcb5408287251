"""What a turn says in its chat: so far, and when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from channels.base import Delivery, Delta, Started, Stored, ToolActivity
from channels.markdown import normal
from channels.telegram.chunks import split
from channels.telegram.formatted import MAX_UNITS, Formatted, Span, joined, units, visible
from channels.telegram.render import render
from session.events import Assistant

STOPPED = "Stopped."
NOTHING = "The model gave no answer."
ENDINGS = {
    "stopped": "(stopped)",
    "cut": "(cut off: the connection to the model broke)",
    "length": "(ends here: the model's length limit)",
    "filtered": "(withheld by the model's provider)",
}


class Snapshot(NamedTuple):
    """A turn's messages at one moment, and a line about the tools that are running."""

    chunks: list[Formatted]
    status: str

    def shown(self) -> list[Formatted]:
        """The messages with the status under the last one, if there is room for it."""
        if not self.status:
            return self.chunks
        if not self.chunks:
            return [Formatted(self.status)]
        *others, last = self.chunks
        with_status = joined([last, Formatted(self.status)])
        return [*others, with_status if units(with_status.text) <= MAX_UNITS else last]


class Said:
    """Folds a running turn's updates; `changed` is set when there is something new to show."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._texts: list[str] = []  # on the way to tools
        self._now: list[str] = []  # since the last of them
        self._tools: dict[str, str] = {}  # running, by call

    def hear(self, update: Started | Delta | ToolActivity | Stored) -> None:
        """Take in one update of the turn."""
        match update:
            case Started():
                self._texts, self._now, self._tools = [], [], {}
            case Delta(text=text):
                self._now.append(text)
            case ToolActivity(state="started", call_id=call_id, name=name):
                self._tools[call_id] = name
            case ToolActivity(call_id=call_id):
                self._tools.pop(call_id, None)
            case Stored(record) if isinstance(record.event, Assistant):
                self._texts.append(record.event.content)
                self._now = []
        self.changed.set()

    async def snapshot(self) -> Snapshot:
        """What there is to show now; `changed` is cleared."""
        self.changed.clear()
        status = "🔧 " + normal(", ".join(self._tools.values())) if self._tools else ""
        texts = [*self._texts, "".join(self._now)]
        return Snapshot(await asyncio.to_thread(lambda: split(_rendered(texts))), status)


async def whole(delivery: Delivery) -> list[Formatted]:
    """The messages of a turn that is over; never none."""
    return await asyncio.to_thread(_whole, delivery)


def _whole(delivery: Delivery) -> list[Formatted]:
    text = _rendered(delivery.texts)
    ending = ENDINGS.get(delivery.finish)
    if not visible(text.text):
        text = Formatted(STOPPED if delivery.finish == "stopped" else ending or NOTHING)
    elif ending:
        text = joined([text, Formatted(ending, (Span("italic", 0, len(ending)),))])
    return split(text)


def _rendered(texts: Sequence[str]) -> Formatted:
    """Each text by itself: a code block that one leaves open does not swallow the next."""
    return joined(piece for piece in map(render, texts) if visible(piece.text))
