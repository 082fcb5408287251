"""What a lane and the agent's runner say to each other about one turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from channels.base import Delta, ToolActivity
from session.conversation import Attempt
from session.events import Assistant, System, ToolCall, ToolResult, Usage, User
from session.ids import SessionId
from session.window import Exchange

TurnEvent = Assistant | ToolCall | ToolResult | System


class Spending(NamedTuple):
    """What the turn's model calls took so far; of the one under way, an estimate of the least it takes."""

    used: Usage


class ContextUse(NamedTuple):
    """What the last request took of the model's context, in tokens; `limit` is None where it is not known.

    `room`: how many messages of the history fitted, where not all did.
    """

    tokens: int
    limit: int | None
    room: int | None = None


TurnUpdate = Delta | ToolActivity | Spending | ContextUse


class Person(Protocol):
    """Whoever asked, as the runner reaches them while it works: the lane."""

    def more(self) -> list[User]:
        """Messages that came since the turn began and belong before the next model call."""

    async def allows(self, call: ToolCall) -> bool:
        """Ask whether the call may run, and wait for the answer; False where none came in time."""


class Nobody:
    """A `Person` who says nothing more and allows nothing."""

    def more(self) -> list[User]:
        return []

    async def allows(self, call: ToolCall) -> bool:
        return False


class Ask(NamedTuple):
    """What a turn is about: the exchanges before it, and its own messages and finished steps.

    `summary`: what was said before `history`, in short. `model`: the name that the person chose, if any.
    """

    session: SessionId
    turn: str
    history: list[Exchange]
    current: Exchange
    person: Person = Nobody()
    summary: str | None = None
    model: str | None = None


class Recap(NamedTuple):
    """What is to be summed up: exchanges, and the summary of what came before them.

    `model`: the name that the person chose, if any.
    """

    session: SessionId
    exchanges: list[Exchange]
    previous: str | None = None
    model: str | None = None


class Runner(Protocol):
    """Answers a turn: events to store, in batches, and updates to show; the last event closes the turn."""

    def run(self, ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        """An async generator that is resumed when what it yielded is on disk."""

    def repeatable(self, call: ToolCall) -> bool:
        """Whether a call that a crash broke off may simply be made again."""

    def summarise(self, recap: Recap) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        """What it spends, then one `summary` event; an error with a `public` sentence where there is none."""


def of_turn(event: TurnEvent, attempt: Attempt, spent: Usage | None = None) -> TurnEvent:
    """The event with its turn; where it closes the turn, with the messages it answers and what was spent."""
    closing = (isinstance(event, Assistant) and event.finish != "tool_calls") or (
        isinstance(event, System) and event.name == "turn_failed"
    )
    if isinstance(event, Assistant | System) and closing:
        spent = spent if spent and spent.tokens else None  # requests that were refused took nothing
        event = replace(event, answers=attempt.messages, usage=event.usage or spent)
    return replace(event, turn=attempt.turn)
