"""The calls to the Bot API that put something before people's eyes, each made until it is done or refused.

Not the library's own rate limiter: on one 429 it halts every chat.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import structlog
from telegram import Bot, InlineKeyboardMarkup, LinkPreviewOptions, MessageEntity, ReplyParameters
from telegram.error import TelegramError

from channels.telegram.chat import Chat
from channels.telegram.errors import (
    Flooded,
    NoSuchMessage,
    NotDone,
    NotReached,
    Unchanged,
    Unformattable,
    Unknown,
    classify,
)
from channels.telegram.formatted import Formatted
from channels.telegram.pace import Pace
from channels.telegram.request import Request

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds after each try in vain; the last one from then on
_UNIMPORTANT = 5.0  # seconds for the answer to a call that nobody misses
_NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


class Patience(NamedTuple):
    """How long a call is tried: seconds of trouble in a row, seconds of one flood wait.

    `repeat`: also where it may have been carried out already, which is known of no `sendMessage`.
    """

    trouble: float = 600.0
    flood: float = float("inf")
    repeat: bool = True


REPLY = Patience()
NOTICE = Patience(trouble=30.0, flood=30.0, repeat=False)


def connect(token: str, api_url: str, get_updates_request: Request | None = None) -> Bot:
    """Make the library's bot with connections of our own; `api_url` is the Bot API server's root.

    Nothing is sent yet; `bot.shutdown()` closes the connections.
    """
    os.environ.setdefault("PTB_TIMEDELTA", "true")  # or the library warns at each 429 of its next version
    root = api_url.rstrip("/")
    return Bot(
        token,
        base_url=f"{root}/bot",
        base_file_url=f"{root}/file/bot",
        request=Request(connections=64),
        get_updates_request=get_updates_request,
    )


class Sending:
    """One bot's outgoing calls. Every method raises `NotDone` where it gives up, and never the library's."""

    def __init__(
        self, bot: Bot, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.floods = 0
        self.sleep = sleep
        self.pace = Pace(clock, sleep)
        self._bot = bot
        self._clock = clock
        self._under_way: set[asyncio.Task[Any]] = set()

    async def send(
        self,
        chat: Chat,
        text: Formatted,
        *,
        reply_to: int | None = None,
        silent: bool = False,
        buttons: InlineKeyboardMarkup | None = None,
        kept: Callable[[int], Awaitable[None]] | None = None,
        patience: Patience = REPLY,
    ) -> None:
        """Send a message; `kept` gets its id, and is not interrupted either once the call is under way."""

        async def call(entities: list[MessageEntity]) -> None:
            message = await self._bot.send_message(
                chat.id,
                text.text,
                entities=entities,
                message_thread_id=chat.topic,
                reply_parameters=ReplyParameters(reply_to, allow_sending_without_reply=True)
                if reply_to is not None
                else None,
                disable_notification=silent,
                reply_markup=buttons,
                link_preview_options=_NO_PREVIEW,
            )
            if kept is not None:
                await kept(message.message_id)

        await self._formatted(chat.id, text, call, patience)

    async def edit(self, chat: Chat, message_id: int, text: Formatted) -> None:
        """Make a message say this, if it does not already; buttons under it go."""

        async def call(entities: list[MessageEntity]) -> None:
            await self._bot.edit_message_text(
                text.text, chat.id, message_id, entities=entities, link_preview_options=_NO_PREVIEW
            )

        try:
            await self._formatted(chat.id, text, call, REPLY)
        except Unchanged:
            pass
        self.pace.edited(chat.id)

    async def delete(self, chat: Chat, message_id: int) -> None:
        """Remove a message, if it is there and not too old for it (48 hours)."""
        try:
            await self._done(chat.id, lambda: self._bot.delete_message(chat.id, message_id), REPLY)
        except NoSuchMessage:
            pass

    async def answer(self, query: str, text: str) -> None:
        """Tell whoever pressed a button what came of it; too late after some seconds, and no matter then."""
        try:
            await self._bot.answer_callback_query(query, text, read_timeout=_UNIMPORTANT)
        except TelegramError as error:
            log.debug("a button was not answered", reason=str(classify(error, self._bot.token)))

    async def strike(self, chat: Chat, message_id: int) -> None:
        """Take the buttons under a message away; it does not matter what comes of it."""
        await self._once(chat, lambda: self._bot.edit_message_reply_markup(chat.id, message_id))

    async def draft(self, chat: Chat, draft_id: int, text: Formatted) -> None:
        """Show what is being written, in a private chat; it does not matter what comes of it."""

        async def call() -> None:
            await self._bot.send_message_draft(
                chat.id,
                draft_id,
                text.text,
                message_thread_id=chat.topic,
                entities=text.entities(),
                read_timeout=_UNIMPORTANT,
            )

        await self._once(chat, lambda: self._undisturbed(call()))

    async def typing(self, chat: Chat) -> None:
        """Show "typing…" for five seconds; it does not matter what comes of it."""
        await self._once(
            chat, lambda: self._bot.send_chat_action(chat.id, "typing", message_thread_id=chat.topic)
        )

    async def _once(self, chat: Chat, call: Callable[[], Awaitable[object]]) -> None:
        if self.pace.held(chat.id):
            return
        try:
            await call()
        except TelegramError as error:
            failed = classify(error, self._bot.token)
            if isinstance(failed, Flooded):
                self._flooded(chat.id, failed)
            log.debug("not shown", chat=chat.id, kind=type(failed).__name__, reason=str(failed))

    async def _formatted(
        self,
        chat_id: int,
        text: Formatted,
        call: Callable[[list[MessageEntity]], Coroutine[Any, Any, None]],
        patience: Patience,
    ) -> None:
        entities = text.entities()
        try:
            await self._done(chat_id, lambda: call(entities), patience)
        except Unformattable as failed:
            # Not delivered, so the same text is sent without its formatting.
            log.warning("Telegram refuses the formatting", chat=chat_id, reason=str(failed))
            await self._done(chat_id, lambda: call([]), patience)

    async def _done(self, chat_id: int, call: Callable[[], Coroutine[Any, Any, T]], patience: Patience) -> T:
        """Make a call in this chat's time until it is carried out or refused."""
        tries, troubled_since = 0, None
        while True:
            await self.pace.turn(chat_id, patience.flood)
            try:
                return await self._undisturbed(call())
            except TelegramError as error:
                failed = classify(error, self._bot.token)
            if isinstance(failed, Flooded) and failed.retry_after <= patience.flood:
                self._flooded(chat_id, failed)
                tries, troubled_since = 0, None  # Telegram answers: the trouble is over
                continue
            if troubled_since is None:
                troubled_since = self._clock()
            again = isinstance(failed, NotReached) or (isinstance(failed, Unknown) and patience.repeat)
            if not again or self._clock() - troubled_since >= patience.trouble:
                raise failed
            log.info("trying again", chat=chat_id, kind=type(failed).__name__, reason=str(failed))
            await self.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1

    async def _undisturbed(self, call: Coroutine[Any, Any, T]) -> T:
        """Let a call end before its caller is cancelled.

        What is under way may be carried out whether or not we listen: it must be recorded, and nothing may
        overtake it.
        """
        task = asyncio.create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # nobody is there any more to hear of it
            raise

    def abort(self) -> None:
        """Break off what is under way, at the end of a stop."""
        for task in self._under_way:
            task.cancel()

    def _flooded(self, chat_id: int, flood: NotDone) -> None:
        self.floods += 1
        self.pace.hold(chat_id, flood.retry_after)
        log.info("flood wait", chat=chat_id, seconds=flood.retry_after)
