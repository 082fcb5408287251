"""What a session's lane knows: folded from the transcript's tail at first, then event by event.

Restart and daily life go through the same `apply`, so that what a restart finds is what was there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from session.backlog import MESSAGES
from session.events import Assistant, Event, Record, System, ToolCall, ToolResult, User, closes
from session.lasting import Lasting
from session.replies import Replies
from session.window import Window

REMEMBERED = 256  # user events among which a repeat is recognised
_READ_AT_MOST = 64 << 20  # bytes of one transcript, when its lane opens


class Seen(NamedTuple):
    """A message id that was stored: the cursor after it, and what tells its text from another.

    `command`: an event that a command caused. `again`: a question that a command asked once more.
    """

    cursor: str
    text: int
    command: bool
    again: bool = False


class Attempt(NamedTuple):
    """A turn that was begun and not closed."""

    turn: str
    messages: tuple[str, ...]
    number: int


class Conversation:
    """The recent past of one session. `apply` must get every stored event, in order."""

    __slots__ = (
        "cursor",
        "lasting",
        "open",
        "replies",
        "running",
        "seen",
        "settings",
        "unfinished_calls",
        "window",
    )

    def __init__(self, history_turns: int, *, push: bool = False) -> None:
        self.window = Window(history_turns)
        self.replies = Replies() if push else None  # of a channel that brings them by itself
        self.cursor: str | None = None  # after the last event applied
        self.seen: dict[str, Seen] = {}
        self.open: dict[str, User] = {}  # messages without an answer, in order
        self.running: Attempt | None = None
        self.unfinished_calls: dict[str, ToolCall] = {}
        self.settings: dict[str, Any] = {}  # what the person chose for this session, by key
        self.lasting = Lasting()

    def apply(self, record: Record) -> None:
        """Take in one stored event."""
        event, self.cursor = record.event, record.cursor
        self.lasting.apply(event)
        match event:
            case User(id=str(id)):
                again = (before := self.seen.get(id)) is not None and before.command
                self._remember(id, Seen(record.cursor, hash(event.content), command=False, again=again))
                self.open[id] = event
                return
            case System(name="started", turn=str(turn)):
                self.begin(Attempt(turn, event.messages or (), event.attempt or 1))
            case System(name="steered", turn=str(turn)):
                self.steer(turn, event.messages or ())
            case System(id=str(id)):
                self._remember(id, Seen(record.cursor, 0, command=True))
            case ToolCall(call_id=str(call_id), turn=str()):
                self.unfinished_calls[call_id] = event
            case ToolResult(call_id=str(call_id)):
                self.unfinished_calls.pop(call_id, None)
        if isinstance(event, System) and event.name == "setting" and event.key:
            self.settings[event.key] = event.value
            if event.value is None:
                del self.settings[event.key]  # chosen no longer
        if (answers := closes(event)) is not None:
            self._close(event, answers)
        self.window.add(event)
        if self.replies is not None:
            self.replies.apply(event)

    def _remember(self, id: str, seen: Seen) -> None:
        self.seen[id] = seen
        if len(self.seen) > 2 * REMEMBERED:
            del self.seen[next(iter(self.seen))]

    def begin(self, attempt: Attempt) -> None:
        """A turn starts, or starts again; doing it twice changes nothing."""
        self.running = attempt
        self.window.begin(attempt.turn, [self.open[id] for id in attempt.messages if id in self.open])

    def steer(self, turn: str, messages: tuple[str, ...]) -> None:
        """The running turn takes more messages in; doing it twice changes nothing."""
        if self.running and self.running.turn == turn:
            new = tuple(id for id in messages if id not in self.running.messages)
            self.running = self.running._replace(messages=self.running.messages + new)
            self.window.steer(turn, [self.open[id] for id in new if id in self.open])

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
    def chosen_model(self) -> str | None:
        """The configured model that the person chose for this session."""
        chosen = self.settings.get("model")
        return chosen if isinstance(chosen, str) else None

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
        self.turn = closing.turn
        self.missing = set(answers)
        self.size = len(answers)
        self.ran = isinstance(closing, Assistant)  # a message can also be closed without a turn of its own


class _Tail:
    """Reads events from the end towards the beginning.

    What was taken back is not counted, nor is the newest exchange: a window that holds it alone, because it
    is so large, still keeps a whole backlog before it.

    Turns run in the order of their messages: whatever is open came after the first message of any turn
    that ran and was closed. So one such turn must be met whole, however much was refused in the meantime.
    """

    def __init__(self, history_turns: int) -> None:
        self._limit = history_turns + MESSAGES
        self._bytes = self._users = 0
        self._sizes = _Sizes()  # of whole exchanges, behind any that is not whole yet: what `Window` counts
        self._with_id = False  # set by the first message that may be open
        self._met_whole = False
        self._turns: dict[str, _Closed] = {}
        self._asked: dict[str, _Closed] = {}  # by message
        self._taken_back: set[str] = set()  # turns

    def enough(self, record: Record) -> bool:
        self._bytes += len(record.line)
        match record.event:
            case User(id=id):
                self._users += 1
                self._meet(id)
            case Assistant(turn=None) if not self._asked:
                self._sizes.foreign(question=False)
            case System(name="undo", turn=str(turn)):
                self._taken_back.add(turn)
            case System(name="started", turn=str(turn)) if turn in self._turns:
                self._turns[turn].ran = True
            case Assistant(turn=str(turn)) | System(name="turn_failed", turn=str(turn)) as event:
                self._meet_step(turn, event)
        settled = self._met_whole or not (self._with_id or self._asked)
        enough = self._users >= REMEMBERED and self._sizes.total > self._limit and settled
        return enough or self._bytes >= _READ_AT_MOST

    def _meet_step(self, turn: str, event: Assistant | System) -> None:
        if (answers := event.answers) and turn not in self._turns:
            self._turns[turn] = closed = _Closed(event, answers)
            self._asked.update(dict.fromkeys(answers, closed))
        if isinstance(event, Assistant) and turn in self._turns:
            self._turns[turn].size += 1

    def _meet(self, id: str | None) -> None:
        if id is None:
            if not self._asked:
                self._sizes.foreign(question=True)
            return
        self._with_id = True
        if closed := self._asked.pop(id, None):
            closed.missing.discard(id)
            if not closed.missing and closed.ran:
                self._met_whole = True
                if closed.turn not in self._taken_back:
                    self._sizes.add(closed.size)


class _Sizes:
    """How many messages the exchanges met so far have, but for the newest of them."""

    def __init__(self) -> None:
        self.total = 0
        self._newest_is_met = False
        self._foreign = 0  # of another program's exchange that is not whole yet
        self._question = False  # whether its question was met

    def add(self, size: int) -> None:
        """A whole exchange."""
        if self._newest_is_met:
            self.total += size
        self._newest_is_met = True

    def foreign(self, *, question: bool) -> None:
        """A message of another program, whose exchanges begin with questions."""
        if self._question and not question:
            self.add(self._foreign)
            self._foreign = 0
        self._foreign += 1
        self._question = question
