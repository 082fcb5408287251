"""What was asked and all that came of it."""

from __future__ import annotations

from collections.abc import Iterable

from session.events import Assistant, ToolCall, ToolResult, User, to_json

Step = Assistant | ToolCall | ToolResult | User  # a User: a message that was put before the model on the way


class Exchange:
    """Messages, then the turn's steps in the file's order.

    `covered`: a summary tells of it. `hidden`: the person took it back while it was still running.
    """

    __slots__ = ("closed", "covered", "hidden", "messages", "steps", "turn")

    def __init__(self, turn: str | None, messages: Iterable[User] = ()) -> None:
        self.turn = turn
        self.messages = list(messages)
        self.steps: list[Step] = []
        self.closed = turn is None  # what another program wrote, without turns, is history
        self.covered = False
        self.hidden = False

    @property
    def asked(self) -> list[User]:
        """The messages that it answers, those that came on the way included."""
        return [*self.messages, *(step for step in self.steps if isinstance(step, User))]

    def has(self, message: User) -> bool:
        """Whether the message is among those that were asked, at first or on the way."""
        return any(message.id == other.id for other in self.asked)

    @property
    def size(self) -> int:
        """How many user and assistant messages it has; what `history_turns` counts."""
        return len(self.messages) + sum(isinstance(step, Assistant | User) for step in self.steps)

    @property
    def bytes(self) -> int:
        """About how much there is to read in it."""
        return sum(_bytes(event) for event in (*self.messages, *self.steps))


def _bytes(event: Step) -> int:
    match event:
        case User(content=text) | Assistant(content=text):
            return len(text)
        case ToolCall(args=value) | ToolResult(result=value):
            return len(value) if isinstance(value, str) else len(to_json(value))
