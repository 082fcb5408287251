"""What a lane and the agent's runner say to each other about one turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from channels.base import Delta, ToolActivity
from session.conversation import Attempt
from session.events import Assistant, System, ToolCall, ToolResult
from session.ids import SessionId
from session.window import Exchange

TurnEvent = Assistant | ToolCall | ToolResult | System
TurnUpdate = Delta | ToolActivity


class Ask(NamedTuple):
    """What a turn is about: the exchanges before it, and its own messages and finished steps."""

    session: SessionId
    turn: str
    history: list[Exchange]
    current: Exchange


class Runner(Protocol):
    """Answers a turn: events to store, in batches, and updates to show; the last event closes the turn."""

    def run(self, ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        """An async generator that is resumed when what it yielded is on disk."""


def of_turn(event: TurnEvent, attempt: Attempt) -> TurnEvent:
    """The event with its turn, and with the messages that it answers where it closes the turn."""
    closing = (isinstance(event, Assistant) and event.finish != "tool_calls") or (
        isinstance(event, System) and event.name == "turn_failed"
    )
    if isinstance(event, Assistant | System) and closing:
        event = replace(event, answers=attempt.messages)
    return replace(event, turn=attempt.turn)
