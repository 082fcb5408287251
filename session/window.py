"""The tail of a transcript as the recent exchanges that a model should see, ordered by turn."""

from __future__ import annotations

from collections.abc import Iterable

from session.backlog import Backlog
from session.events import Assistant, Event, System, ToolCall, ToolResult, User, closes
from session.exchange import Exchange, Step

__all__ = ["Exchange", "Step", "Window"]


class Window:
    """The last exchanges, kept up to date event by event; holds at most `history_turns` messages.

    The newest closed exchange is always whole, also where it alone has more: a window never begins inside
    one. What is still running does not count and is never dropped. What falls out before a summary covers
    it goes to the `backlog`.
    """

    # Lists, also in the backlog: they are short, and a deque's first block takes 600 bytes a session.
    __slots__ = ("_exchanges", "_running", "backlog", "limit", "summary")

    def __init__(self, history_turns: int) -> None:
        self.summary: str | None = None  # of what was said before
        self.backlog = Backlog()
        self.limit = history_turns
        self._exchanges: list[Exchange] = []
        self._running: dict[str, Exchange] = {}

    def begin(self, turn: str, messages: Iterable[User]) -> None:
        """A turn starts (or starts again) on these messages: from here on they stand before its steps."""
        if (exchange := self._running.get(turn)) is None:
            exchange = self._running[turn] = Exchange(turn)
            self._exchanges.append(exchange)
        exchange.messages.extend(message for message in messages if not exchange.has(message))

    def steer(self, turn: str, messages: Iterable[User]) -> None:
        """The running turn takes these messages in: they stand behind the steps that it has made."""
        if exchange := self._running.get(turn):
            exchange.steps.extend(message for message in messages if not exchange.has(message))

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
                self.backlog.clear()
                self.summary = None
            case System(name="undo", turn=str(taken_back)):
                self._hide(taken_back)
            case System(name="summary", content=str(text)):
                self.summary = text
                self._cover(event.covers, drop=bool(event.instead))
        turn = getattr(event, "turn", None)
        if turn and closes(event) is not None and (exchange := self._running.pop(turn, None)):
            exchange.closed = True
            if exchange.hidden:
                self._remove(exchange)
        self._trim()

    def _hide(self, turn: str) -> None:
        """Take an exchange back: at once, or when it is over."""
        if exchange := self._running.get(turn):
            exchange.hidden = True
            return
        for exchange in [exchange for exchange in self.known if exchange.turn == turn]:
            self._remove(exchange)

    def _cover(self, turn: str | None, *, drop: bool) -> None:
        """A summary tells of everything up to this turn; the model no longer sees that where `drop` is set.

        A turn that is not known here is older than all that is.
        """
        known = self.known
        last = next((number for number, exchange in enumerate(known) if exchange.turn == turn), -1)
        for exchange in known[: last + 1]:
            exchange.covered = True
            if drop or exchange in self.backlog:
                self._remove(exchange)

    @property
    def known(self) -> list[Exchange]:
        """The closed exchanges, seen or not, oldest first."""
        return [*self.backlog, *(exchange for exchange in self._exchanges if exchange.closed)]

    def _remove(self, exchange: Exchange) -> None:
        if exchange in self.backlog:
            self.backlog.discard(exchange)
        elif exchange in self._exchanges:
            self._exchanges.remove(exchange)

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
            if size <= self.limit:
                return
            self._exchanges.remove(oldest)
            size -= oldest.size
            if not oldest.covered:
                self.backlog.add(oldest)

    @property
    def size(self) -> int:
        """How many closed user and assistant messages there are."""
        return sum(exchange.size for exchange in self._exchanges if exchange.closed)

    def before(self, turn: str) -> list[Exchange]:
        """The closed exchanges that the turn sees, oldest first."""
        closed = (exchange for exchange in self._exchanges if exchange.closed and not exchange.hidden)
        return [exchange for exchange in closed if exchange.turn != turn]

    def uncovered(self) -> list[Exchange]:
        """Those of which no summary tells."""
        return [exchange for exchange in self.known if not exchange.covered]

    def last(self, running: str | None) -> Exchange | None:
        """The newest exchange of ours that was not taken back: the running turn's, or one that is seen."""
        ours = (exchange for exchange in reversed(self._exchanges) if exchange.turn and not exchange.hidden)
        return next((exchange for exchange in ours if exchange.closed or exchange.turn == running), None)

    def of(self, turn: str) -> Exchange:
        """The running turn's own messages and finished steps; raises `KeyError` if it is not running."""
        return self._running[turn]
