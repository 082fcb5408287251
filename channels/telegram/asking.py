"""The questions of one session's turn, each a message with buttons that later says what was decided."""

from __future__ import annotations

import asyncio

import structlog

from channels.asking import arguments
from channels.base import Approval, Done, Session, Started, Stored, Update
from channels.telegram.buttons import keyboard
from channels.telegram.chat import of_session
from channels.telegram.errors import NotDone
from channels.telegram.formatted import Formatted, Span
from channels.telegram.sending import Sending
from session.events import System

log = structlog.get_logger(__name__)

_LONGEST = 1500  # characters of the arguments, two UTF-16 units each at most: it stays one message
_LONGEST_NAME = 100

ASKED = "May it run?"
ALLOWED = "✅ Allowed."
NOT_ALLOWED = "🚫 Not allowed."
TOO_LATE = "⌛ Nobody answered in time: it did not run."
OVER = "The reply ended before anybody answered: it did not run."


class _Question:
    def __init__(self, asked: Approval) -> None:
        self.asked = asked
        self.message_id: int | None = None  # set when it is sent
        self.decided: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def text(self, words: str) -> Formatted:
        # A server of tools chooses their names: they are shown as safely as what the model chooses.
        name, shown = arguments(self.asked.name, _LONGEST_NAME), arguments(self.asked.args, _LONGEST)
        start = len(name) + 1
        spans = (Span("bold", 0, len(name)), Span("pre", start, start + len(shown)))
        return Formatted(f"{name}\n{shown}\n{words}", spans)

    def decide(self, words: str) -> None:
        if not self.decided.done():
            self.decided.set_result(words)


class Asking:
    """Hears the session's updates, and shows its questions."""

    def __init__(self, session: Session, sending: Sending) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._session = session
        self._sending = sending
        self._questions: dict[str, _Question] = {}  # by call; those that nobody has answered
        self._in_order = asyncio.Lock()  # two calls at once may arrive in any order

    def hear(self, update: Update) -> None:
        """Take in one update of the session."""
        match update:
            case Approval():
                self._ask(update)
            case Stored(record) if isinstance(record.event, System) and record.event.name == "approval":
                self._answered(record.event)
            case Started() | Done():
                for question in self._questions.values():
                    question.decide(OVER)
                self._questions.clear()

    def later_than(self, message_id: int) -> bool:
        """Whether all that is being asked was asked after a message that somebody wrote."""
        ids = [question.message_id for question in self._questions.values()]
        return bool(ids) and all(id is None or id > message_id for id in ids)

    def leave(self) -> None:
        """Show nothing more: a question that is open stays as it is, and the next start asks anew."""
        for task in self.tasks:
            task.cancel()

    def _ask(self, asked: Approval) -> None:
        question = self._questions[asked.call_id] = _Question(asked)
        task = asyncio.create_task(self._show(question), name=f"ask {asked.call_id}")
        self.tasks.add(task)
        task.add_done_callback(self._shown)

    def _answered(self, event: System) -> None:
        if question := self._questions.pop(event.call_id or "", None):
            late = (event.ts or "") >= question.asked.expires and not event.allow
            question.decide(ALLOWED if event.allow else TOO_LATE if late else NOT_ALLOWED)

    async def _show(self, question: _Question) -> None:
        async def kept(message_id: int) -> None:
            question.message_id = message_id

        chat = of_session(self._session.id, self._session.address)
        buttons = keyboard(question.asked.call_id)
        try:
            async with self._in_order:
                await self._sending.send(chat, question.text(ASKED), buttons=buttons, kept=kept)
            words = await question.decided
            if question.message_id is not None:
                await self._sending.edit(chat, question.message_id, question.text(words))
        except NotDone as failed:
            log.warning("a question was not shown", chat=chat.id, reason=str(failed))

    def _shown(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("a question could not be shown", exc_info=task.exception())
