"""Brings the replies of all Telegram sessions, each turn's by itself."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
from telegram import Bot

from channels.base import Session
from channels.markdown import normal
from channels.telegram.buttons import Pressed
from channels.telegram.chat import Chat
from channels.telegram.chunks import split
from channels.telegram.desk import Desk
from channels.telegram.errors import BadPeer, Moved, NotDone
from channels.telegram.formatted import Formatted
from channels.telegram.reply import Outcome, Streaming
from channels.telegram.sending import NOTICE, Sending
from session.ids import Provider, SessionId

log = structlog.get_logger(__name__)

_GRACE = 3.0  # seconds that a stop waits for what is being sent, and again for what was interrupted


class Failure(NamedTuple):
    """A reply that was not delivered, and Telegram's reason; the next start tries again what can be."""

    session: SessionId
    turn: str
    reason: str


class Deliveries:
    """A `channels.base.Courier`. The bot stays its maker's: it is neither opened nor closed here.

    `shared`: other gateways bring replies of the same bot, too.
    """

    def __init__(
        self,
        bot: Bot,
        *,
        streaming: Streaming = "edit",
        shared: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.provider = Provider("telegram")
        self.failures: deque[Failure] = deque(maxlen=20)  # since the start, the last ones
        self.failed = 0  # replies that were not delivered, since the start
        self.delivered = 0
        self._sending = Sending(bot, clock, sleep)
        self._streaming: Streaming = streaming
        self._shared = shared
        self._desks: dict[SessionId, Desk] = {}

    @property
    def waiting(self) -> int:
        """How many replies are not delivered yet, running turns among them."""
        return sum(desk.waiting for desk in self._desks.values())

    @property
    def floods(self) -> int:
        """How often Telegram said "too many requests", since the start."""
        return self._sending.floods

    def attend(self, session: Session) -> None:
        """Bring what is undelivered of the session, and from now on what its turns say; returns at once."""
        if desk := self._desks.pop(session.id, None):
            desk.leave()
        try:
            self._desks[session.id] = Desk(
                session, self._sending, self._streaming, self._told, shared=self._shared
            )
        except BadPeer as error:
            log.warning("a session has no place in Telegram", session=session.id, reason=str(error))

    def dismiss(self, session: SessionId) -> None:
        """Let go of the session; one that is not attended does no harm."""
        if desk := self._desks.pop(session, None):
            desk.stop()

    async def say(self, chat: Chat, text: str, reply_to: int | None = None) -> None:
        """Send a notice as it is written: an answer to a command, a sentence about pairing.

        It is tried for half a minute, and never sent again where it may have arrived. Returns when that is
        over, so it is not to be awaited where other chats wait too.
        """
        for part in split(Formatted(normal(text))):
            try:
                await self._said(chat, part, reply_to)
            except NotDone as failed:
                log.warning("a notice was not delivered", chat=chat.id, reason=str(failed))
                return
            reply_to = None

    async def _said(self, chat: Chat, text: Formatted, reply_to: int | None) -> None:
        try:
            await self._sending.send(chat, text, reply_to=reply_to, patience=NOTICE)
        except Moved as moved:
            await self._sending.send(Chat(moved.chat_id, chat.topic), text, patience=NOTICE)

    async def press(self, pressed: Pressed, said: str, *, over: bool) -> None:
        """Tell whoever pressed a button what came of it; where the question is `over`, its buttons go."""
        await self._sending.answer(pressed.query, said)
        if over:
            await self._sending.strike(pressed.chat, pressed.message_id)

    def asked_later(self, session: SessionId, message_id: int) -> bool:
        """Whether all that the session asks was asked after somebody had written this message."""
        desk = self._desks.get(session)
        return desk is not None and desk.asking.later_than(message_id)

    async def close(self, grace: float = _GRACE) -> None:
        """Stop: what is over is brought if that takes no longer than `grace` seconds; running turns are left.

        To be called while transcripts can still be written.
        """
        desks, self._desks = list(self._desks.values()), {}
        for desk in desks:
            desk.leave()
        workers = {task for desk in desks for task in desk.tasks}
        if not workers:
            return
        await asyncio.wait(workers, timeout=grace)
        for worker in workers:
            worker.cancel()
        _, hanging = await asyncio.wait(workers, timeout=grace)
        if hanging:
            self._sending.abort()
            await asyncio.wait(hanging)

    def _told(self, session: Session, turn: str, outcome: Outcome) -> None:
        if outcome == "delivered":
            self.delivered += 1
        elif isinstance(outcome, NotDone):
            self.failed += 1
            self.failures.append(Failure(session.id, turn, str(outcome)))
            log.error("a reply was not delivered", session=session.id, turn=turn, reason=str(outcome))
