"""One turn's reply in its chat: the bubbles that show it, from the first beginning to the last edit.

`sendMessage` cannot be repeated safely, an edit can. So with `streaming: edit` a bubble begins as a part of
what it will say, its id is recorded, and only then an edit makes it whole: a crash at any point leaves
either a bubble that we know, or one that does not hold the reply.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from channels.base import Delivery, Sent, Session
from channels.errors import Refused
from channels.telegram.chat import Chat, of_session
from channels.telegram.chunks import opening
from channels.telegram.errors import Moved, NoSuchMessage, NoSuchThread, NotDone, Unreachable
from channels.telegram.formatted import Formatted
from channels.telegram.said import Said, whole
from channels.telegram.sending import Sending
from session.errors import LeaseLost
from session.events import System

log = structlog.get_logger(__name__)

Streaming = Literal["edit", "draft", "off"]
Outcome = Literal["delivered", "abandoned"] | NotDone

MAX_FAILURES = 3  # deliveries of one reply that may fail, over all starts
_FIRST = 0.4  # seconds between the first words and the first bubble: it should hold a few of them
_TYPING = 4.5  # seconds; Telegram shows it for five
_RECORD_AGAIN = 2.0  # seconds between two tries to record something
_BROKEN = "an error inside the gateway; its log says more"
_DETOURS = 3  # times that a reply is begun again: its chat moved, its topic is closed, a bubble is deleted


@dataclass
class _Bubble:
    message_id: int
    shown: Formatted | None = None  # None: not known, it may be anything


class Reply:
    """`said` is fed while the turn runs; `close` ends that. `deliver` brings it, and is called once."""

    def __init__(
        self,
        session: Session,
        sending: Sending,
        streaming: Streaming,
        turn: str,
        answers: tuple[str, ...],
        sent: Iterable[Sent],
        *,
        ours: bool = True,
    ) -> None:
        """`sent`: what an earlier attempt at the turn, or at its delivery, has sent. Raises `BadPeer`.

        Where that is not `ours`, another gateway may change it yet, for instance one that stood still: it is
        deleted before anything else is shown, so that no late edit can put half a reply over the whole one.
        """
        self.turn = turn
        self.said = Said()
        self._session = session
        self._sending = sending
        self._chat = chat = of_session(session.id, session.address)
        self._streaming = "off" if streaming == "draft" and not chat.private else streaming
        self._answers = answers
        here = [s for s in sent if s.chat == str(chat.id)]
        self._bubbles = {s.part: _Bubble(s.message_id) for s in here if ours}
        self._foreign = [] if ours else [s.message_id for s in here]
        self._over = asyncio.Event()  # set by `close` and `abandon`
        self._delivery: Delivery | None = None  # set by `close`

    @property
    def over(self) -> bool:
        """Whether the turn has ended, so that nothing more is said."""
        return self._over.is_set()

    def close(self, delivery: Delivery) -> None:
        """The turn is stored; doing it twice changes nothing."""
        self._delivery = self._delivery or delivery
        self._over.set()

    def abandon(self) -> None:
        """The turn ended without anything to deliver: its session was deleted."""
        self._over.set()

    async def deliver(self) -> Outcome:
        """Show the turn while it runs, bring it when it is over, and record what came of that."""
        if not self.over:
            await self._follow()
        if self._delivery is None:
            return "abandoned"
        try:
            await self._finish(await whole(self._delivery))
        except NotDone as failed:
            return await self._failed(failed, self._delivery.failures + 1)
        except Exception:
            log.exception("a delivery broke", turn=self.turn, chat=self._chat.id)
            return await self._failed(NotDone(_BROKEN), self._delivery.failures + 1)
        await self._record("delivered")
        return "delivered"

    async def _failed(self, failed: NotDone, failures: int) -> NotDone:
        last = isinstance(failed, Unreachable) or failures >= MAX_FAILURES
        await self._record("delivery_failed", content=str(failed), final=True if last else None)
        return failed

    # -- while the turn runs ---------------------------------------------------------------------

    async def _follow(self) -> None:
        following = [asyncio.create_task(self._type(), name=f"type {self.turn}")]
        if along := {"edit": self._edit_along, "draft": self._draft_along}.get(self._streaming):
            following.append(asyncio.create_task(along(), name=f"follow {self.turn}"))
        try:
            await self._over.wait()
        finally:
            for task in following:
                task.cancel()  # what it is sending just now is sent and recorded first
            await asyncio.wait(following)
        for task in following:
            if not task.cancelled() and (broken := task.exception()):
                log.error("a reply could not be shown while it was written", turn=self.turn, exc_info=broken)

    async def _type(self) -> None:
        while True:
            await self._sending.typing(self._chat)
            await self._sending.sleep(_TYPING)

    async def _edit_along(self) -> None:
        try:
            while True:
                await self.said.changed.wait()
                between = self._sending.pace.between_edits(self._chat.id)
                await self._sending.sleep(between if self._bubbles else _FIRST)
                await self._edit_to((await self.said.snapshot()).shown())
        except NotDone as failed:
            # It is brought when the turn is over, and what is wrong is dealt with there.
            log.info("not shown any more while it is written", turn=self.turn, reason=str(failed))

    async def _edit_to(self, chunks: list[Formatted]) -> None:
        for part, chunk in enumerate(chunks):
            if part in self._bubbles:
                await self._edit(part, chunk)
            else:
                await self._open(part, opening(chunk))
                self.said.changed.set()  # the next edit brings the rest

    async def _draft_along(self) -> None:
        draft_id = zlib.crc32(self.turn.encode()) & 0x7FFFFFFF or 1
        while True:
            await self.said.changed.wait()
            await self._sending.sleep(self._sending.pace.between_edits(self._chat.id))
            for chunk in (await self.said.snapshot()).shown()[-1:]:  # a draft is one message
                await self._sending.draft(self._chat, draft_id, chunk)

    # -- when it is over -------------------------------------------------------------------------

    async def _finish(self, chunks: list[Formatted]) -> None:
        """Bring the whole reply, from wherever it stands; raises `NotDone`."""
        for _ in range(_DETOURS):
            try:
                return await self._bring(chunks)
            except Moved as moved:
                await self._record("address", chat=str(moved.chat_id))
                self._chat = Chat(moved.chat_id, self._chat.topic)
                self._bubbles.clear()  # they stayed behind
                self._foreign.clear()
            except NoSuchThread:
                log.info("the topic is gone: the reply goes to the chat", turn=self.turn, chat=self._chat.id)
                self._chat = Chat(self._chat.id)
            except NoSuchMessage:
                log.info("a bubble was deleted: it is sent anew", turn=self.turn, chat=self._chat.id)
        return await self._bring(chunks)

    async def _bring(self, chunks: list[Formatted]) -> None:
        for part, chunk in enumerate(chunks):
            if part not in self._bubbles:
                await self._open(part, opening(chunk) if self._streaming == "edit" else chunk)
            await self._edit(part, chunk)
        for part in sorted(part for part in self._bubbles if part >= len(chunks)):
            await self._sending.delete(self._chat, self._bubbles[part].message_id)
            del self._bubbles[part]

    # -- bubbles ---------------------------------------------------------------------------------

    async def _open(self, part: int, text: Formatted) -> None:
        async def kept(message_id: int) -> None:
            self._bubbles[part] = _Bubble(message_id, text)
            await self._record("sent", part=part, message_id=message_id, chat=str(self._chat.id))

        while self._foreign:
            await self._sending.delete(self._chat, self._foreign[-1])
            self._foreign.pop()
        question = self._question() if part == 0 else None
        await self._sending.send(self._chat, text, reply_to=question, silent=part > 0, kept=kept)

    async def _edit(self, part: int, text: Formatted) -> None:
        """Raises `NoSuchMessage` for a bubble that is gone, and forgets it."""
        bubble = self._bubbles[part]
        if bubble.shown == text:
            return
        bubble.shown = None  # if this is cancelled, it may say either
        try:
            await self._sending.edit(self._chat, bubble.message_id, text)
        except NoSuchMessage:
            del self._bubbles[part]
            raise
        bubble.shown = text

    def _question(self) -> int | None:
        """The message to quote: in a group, the last one that this is the answer to."""
        found = [] if self._chat.private else [self._chat.message(id) for id in self._answers]
        return next((id for id in reversed(found) if id is not None), None)

    async def _record(self, name: str, **fields: Any) -> None:
        """Store an event, however long that takes: nothing may be sent before what was sent is known."""
        event = System(name=name, turn=None if name == "address" else self.turn, **fields)
        while True:
            try:
                return await self._session.record([event])
            except Refused as refused:
                log.warning("a delivery waits for the disk", turn=self.turn, reason=refused.public)
                await self._sending.sleep(_RECORD_AGAIN)
            except LeaseLost:
                log.warning("another gateway brings the reply: it may come twice", turn=self.turn)
                return None
