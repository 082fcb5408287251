"""The tail of a transcript as the recent exchanges that a model should see, ordered by turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from session.events import Assistant, Event, System, ToolCall, ToolResult, User, closes


class Exchange:
    """What was asked and all that came of it: messages, then the turn's steps in the file's order."""

    __slots__ = ("closed", "messages", "steps", "turn")

    def __init__(self, turn: str | None, messages: Iterable[User] = ()) -> None:
        self.turn = turn
        self.messages = list(messages)
        self.steps: list[Assistant | ToolCall | ToolResult] = []
        self.closed = turn is None  # what another program wrote, without turns, is history

    @property
    def size(self) -> int:
        """How many user and assistant messages it has; what `history_turns` counts."""
        return len(self.messages) + sum(isinstance(step, Assistant) for step in self.steps)


class Window:
    """The last exchanges, kept up to date event by event; holds at most `history_turns` messages.

    The newest closed exchange is always whole, also where it alone has more: a window never begins inside
    one. What is still running does not count and is never dropped.
    """

    def __init__(self, history_turns: int) -> None:
        self._limit = history_turns
        self._exchanges: deque[Exchange] = deque()
        self._running: dict[str, Exchange] = {}

    def begin(self, turn: str, messages: Iterable[User]) -> None:
        """A turn starts (or starts again) on these messages: from here on they stand before its steps."""
        if (exchange := self._running.get(turn)) is None:
            exchange = self._running[turn] = Exchange(turn)
            self._exchanges.append(exchange)
        known = {message.id for message in exchange.messages}
        exchange.messages.extend(message for message in messages if message.id not in known)

    def add(self, event: Event) -> None:
        """Take in one stored event; user events with an id come in by `begin`."""
        match event:
            case User():
                if not self._exchanges or self._exchanges[-1].turn or self._exchanges[-1].steps:
                    self._exchanges.append(Exchange(None))
                self._exchanges[-1].messages.append(event)
            case Assistant() | ToolCall() | ToolResult():
                self._place(event.turn).steps.append(event)
            case System(name="reset"):
                self._exchanges.clear()
        turn = getattr(event, "turn", None)
        if turn and closes(event) is not None and (exchange := self._running.pop(turn, None)):
            exchange.closed = True
        self._trim()

    def _place(self, turn: str | None) -> Exchange:
        if turn:
            if turn not in self._running:
                self.begin(turn, ())
            return self._running[turn]
        if not self._exchanges or self._exchanges[-1].turn:
            self._exchanges.append(Exchange(None))
        return self._exchanges[-1]

    def _trim(self) -> None:
        size = self.size
        closed = [exchange for exchange in self._exchanges if exchange.closed]
        for oldest in closed[:-1]:
            if size <= self._limit:
                return
            self._exchanges.remove(oldest)
            size -= oldest.size

    @property
    def size(self) -> int:
        """How many closed user and assistant messages there are."""
        return sum(exchange.size for exchange in self._exchanges if exchange.closed)

    def before(self, turn: str) -> list[Exchange]:
        """The closed exchanges that the turn sees, oldest first."""
        return [exchange for exchange in self._exchanges if exchange.closed and exchange.turn != turn]

    def of(self, turn: str) -> Exchange:
        """The running turn's own messages and finished steps; raises `KeyError` if it is not running."""
        return self._running[turn]
