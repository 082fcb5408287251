"""One session's replies in Telegram, brought one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from channels.base import Delta, Done, Sent, Session, Started, Stored, ToolActivity, Update
from channels.telegram.asking import Asking
from channels.telegram.chat import of_session
from channels.telegram.errors import NotDone
from channels.telegram.reply import MAX_FAILURES, Outcome, Reply, Streaming
from channels.telegram.sending import Sending
from session.events import closes

log = structlog.get_logger(__name__)

Told = Callable[[Session, str, Outcome], None]  # (session, turn, what came of its delivery)


class Desk:
    """Watches a session from when it is made until `leave`. Raises `BadPeer` for one that is not of Telegram.

    Replies are brought in the order of their turns: the next one is not begun before the last one is whole.
    """

    def __init__(
        self, session: Session, sending: Sending, streaming: Streaming, told: Told, *, shared: bool = False
    ) -> None:
        """`shared`: another gateway may have begun what this one goes on with."""
        self._shared = shared
        self._session = session
        self._sending = sending
        self._streaming: Streaming = streaming
        self._told = told
        self._replies: dict[str, Reply] = {}  # by turn, in order
        self._given_up: set[str] = set()  # turns whose delivery failed; the next start tries them again
        self._leaving = False
        self.asking = Asking(session, sending)
        self.worker: asyncio.Task[None] | None = None  # None, or done, while there is nothing to bring
        of_session(session.id, session.address)
        self._gather()
        self._watch = session.watch(self._hear)
        if running := self._watch.running:
            reply = self._running(running.turn, running.answers)
            reply.said.hear(Delta(running.turn, running.text))
            for asked in running.approvals:
                self.asking.hear(asked)

    @property
    def waiting(self) -> int:
        """How many replies are not delivered yet, running turns among them."""
        return len(self._replies)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What is under way for the session."""
        working = {self.worker} if self.worker and not self.worker.done() else set()
        return working | self.asking.tasks

    def leave(self) -> None:
        """Hear nothing more, and bring only what is over already."""
        self._watch.close()
        self.asking.leave()
        self._leaving = True
        reply = self._first()
        if self.worker and reply and not reply.over:
            self.worker.cancel()

    def stop(self) -> None:
        """Bring nothing more, what is over neither: it is not for us."""
        self.leave()
        if self.worker:
            self.worker.cancel()

    def _hear(self, update: Update) -> None:
        self.asking.hear(update)
        match update:
            case Started(turn, answers):
                self._running(turn, answers).said.hear(update)
            case Delta(turn=turn) | ToolActivity(turn=turn):
                if reply := self._replies.get(turn):
                    reply.said.hear(update)
            case Stored(record):
                if closes(record.event) is not None:
                    self._gather()
                elif reply := self._replies.get(getattr(record.event, "turn", None) or ""):
                    reply.said.hear(update)
            case Done(turn=turn):
                if reply := self._replies.get(turn):
                    reply.abandon()

    def _gather(self) -> None:
        """Take in the replies that are stored and not brought."""
        for delivery in self._session.undelivered():
            if delivery.turn not in self._given_up and delivery.failures < MAX_FAILURES:
                self._reply(delivery.turn, delivery.answers, delivery.sent).close(delivery)

    def _running(self, turn: str, answers: tuple[str, ...]) -> Reply:
        # Of a turn that is over, whoever ended it brings the same as we do, and deletes nothing.
        return self._reply(turn, answers, self._session.sent(turn), ours=not self._shared)

    def _reply(
        self, turn: str, answers: tuple[str, ...], sent: Iterable[Sent], *, ours: bool = True
    ) -> Reply:
        if turn not in self._replies:
            self._replies[turn] = Reply(
                self._session, self._sending, self._streaming, turn, answers, sent, ours=ours
            )
            if self.worker is None or self.worker.done():
                self.worker = asyncio.create_task(self._work(), name=f"deliver {self._session.id}")
        return self._replies[turn]

    async def _work(self) -> None:
        while reply := self._first():
            if self._leaving and not reply.over:
                return
            outcome = await reply.deliver()
            if isinstance(outcome, NotDone):
                self._given_up.add(reply.turn)
            del self._replies[reply.turn]
            self._told(self._session, reply.turn, outcome)

    def _first(self) -> Reply | None:
        return next(iter(self._replies.values()), None)
