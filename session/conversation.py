"""What a session's lane knows: folded from the transcript's tail at first, then event by event.

Restart and daily life go through the same `apply`, so that what a restart finds is what was there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from session.events import Assistant, Event, Record, System, ToolCall, ToolResult, User, closes
from session.replies import Replies
from session.window import Window

REMEMBERED = 256  # user events among which a repeat is recognised
_READ_AT_MOST = 64 << 20  # bytes of one transcript, when its lane opens


class Seen(NamedTuple):
    """A message id that was stored: the cursor after it, and what tells its text from another."""

    cursor: str
    text: int
    command: bool


class Attempt(NamedTuple):
    """A turn that was begun and not closed."""

    turn: str
    messages: tuple[str, ...]
    number: int


class Conversation:
    """The recent past of one session. `apply` must get every stored event, in order."""

    def __init__(self, history_turns: int, *, push: bool = False) -> None:
        self.window = Window(history_turns)
        self.replies = Replies() if push else None  # of a channel that brings them by itself
        self.cursor: str | None = None  # after the last event applied
        self.seen: OrderedDict[str, Seen] = OrderedDict()
        self.open: dict[str, User] = {}  # messages without an answer, in order
        self.running: Attempt | None = None
        self.unfinished_calls: dict[str, ToolCall] = {}

    def apply(self, record: Record) -> None:
        """Take in one stored event."""
        event, self.cursor = record.event, record.cursor
        match event:
            case User(id=str(id)):
                self._remember(id, Seen(record.cursor, hash(event.content), command=False))
                self.open[id] = event
                return
            case System(name="started", turn=str(turn)):
                self.begin(Attempt(turn, event.messages or (), event.attempt or 1))
            case System(id=str(id)):
                self._remember(id, Seen(record.cursor, 0, command=True))
            case ToolCall(call_id=str(call_id), turn=str()):
                self.unfinished_calls[call_id] = event
            case ToolResult(call_id=str(call_id)):
                self.unfinished_calls.pop(call_id, None)
        if (answers := closes(event)) is not None:
            self._close(event, answers)
        self.window.add(event)
        if self.replies is not None:
            self.replies.apply(event)

    def _remember(self, id: str, seen: Seen) -> None:
        self.seen[id] = seen
        if len(self.seen) > 2 * REMEMBERED:
            self.seen.popitem(last=False)

    def begin(self, attempt: Attempt) -> None:
        """A turn starts, or starts again; doing it twice changes nothing."""
        self.running = attempt
        self.window.begin(attempt.turn, [self.open[id] for id in attempt.messages if id in self.open])

    def _close(self, event: Event, answers: tuple[str, ...]) -> None:
        answered = [self.open.pop(id) for id in answers if id in self.open]
        turn = event.turn if isinstance(event, Assistant | System) else None
        if turn and answered:
            self.window.begin(turn, answered)  # `started` is not waited for: a crash may have lost it
        if self.running and self.running.turn == turn:
            self.running = None
        for id, call in list(self.unfinished_calls.items()):
            if call.turn == turn:
                del self.unfinished_calls[id]

    @property
    def settled(self) -> bool:
        """Whether everything is answered and, on a push channel, delivered."""
        return not self.open and not (self.replies and self.replies.undelivered())

    def waiting(self) -> list[User]:
        """Open messages that no begun turn covers, in order."""
        begun = self.running.messages if self.running else ()
        return [message for id, message in self.open.items() if id not in begun]


def tail(history_turns: int) -> Callable[[Record], bool]:
    """A predicate for `Store.recent`: true at the event where a `Conversation` has all that it needs."""
    return _Tail(history_turns).enough


class _Closed:
    """A closed turn whose messages were not all met yet, on the way towards the beginning."""

    def __init__(self, closing: Assistant | System, answers: tuple[str, ...]) -> None:
        self.missing = set(answers)
        self.size = len(answers)
        self.ran = isinstance(closing, Assistant)  # a message can also be closed without a turn of its own


class _Tail:
    """Reads events from the end towards the beginning.

    Turns run in the order of their messages: whatever is open came after the first message of any turn
    that ran and was closed. So one such turn must be met whole, however much was refused in the meantime.
    """

    def __init__(self, history_turns: int) -> None:
        self._limit = history_turns
        self._bytes = self._users = 0
        self._messages = 0  # of whole exchanges, behind any that is not whole yet: what `Window` will count
        self._with_id = False  # set by the first message that may be open
        self._met_whole = False
        self._turns: dict[str, _Closed] = {}
        self._asked: dict[str, _Closed] = {}  # by message

    def enough(self, record: Record) -> bool:
        self._bytes += len(record.line)
        match record.event:
            case User(id=id):
                self._users += 1
                self._meet(id)
            case Assistant(turn=None):
                self._messages += not self._asked
            case System(name="started", turn=str(turn)) if turn in self._turns:
                self._turns[turn].ran = True
            case Assistant(turn=str(turn)) | System(name="turn_failed", turn=str(turn)) as event:
                self._meet_step(turn, event)
        settled = self._met_whole or not (self._with_id or self._asked)
        enough = self._users >= REMEMBERED and self._messages > self._limit and settled
        return enough or self._bytes >= _READ_AT_MOST

    def _meet_step(self, turn: str, event: Assistant | System) -> None:
        if (answers := event.answers) and turn not in self._turns:
            self._turns[turn] = closed = _Closed(event, answers)
            self._asked.update(dict.fromkeys(answers, closed))
        if isinstance(event, Assistant) and turn in self._turns:
            self._turns[turn].size += 1

    def _meet(self, id: str | None) -> None:
        if id is None:
            self._messages += not self._asked
            return
        self._with_id = True
        if closed := self._asked.pop(id, None):
            closed.missing.discard(id)
            if not closed.missing and closed.ran:
                self._messages += closed.size
                self._met_whole = True
