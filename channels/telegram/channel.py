"""The Telegram channel: its parts, and how they live together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from telegram import BotCommand, User
from telegram.error import TelegramError

from channels.base import Inbox
from channels.telegram.adapter import Adapter
from channels.telegram.buttons import Pressed
from channels.telegram.chat import Chat, of_peer
from channels.telegram.dead_letters import DeadLetters
from channels.telegram.delivery import Deliveries
from channels.telegram.intake import Intake, Parts
from channels.telegram.media import Media
from channels.telegram.moves import FILE as MOVES
from channels.telegram.moves import Moves
from channels.telegram.pairing import Pairing
from channels.telegram.people import People
from channels.telegram.polling import LONG_POLL, Poller, PollRequest
from channels.telegram.reach import Reach
from channels.telegram.sending import connect
from channels.telegram.settings import Settings
from channels.telegram.shared import Common, journal
from channels.telegram.webhook import Webhook
from channels.telegram.welcome import Welcome

__all__ = ["Settings", "TelegramChannel"]

log = structlog.get_logger(__name__)

_NOTICES = 256  # that are on their way at once; more are dropped
_NOTICES_OF_A_CHAT = 16  # the same of one chat: a group is told 20 things a minute
_GRACE = 3.0  # seconds that a stop waits for them
_MENU_TRIES = 5
_MENU_PAUSE = 60.0
_NOT_YET = 503


class TelegramChannel:
    """A `channels.base.Channel`. `commands` are names and summaries; `clock` counts seconds that never jump.

    `run` takes in what people send, by polling or by webhook; `courier` brings the answers. `common`: what
    several nodes of one bot share, `pairing` among it; one of them polls, or sees to the webhook, for all.
    """

    name = "telegram"

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        data_dir: Path,
        pairing: Pairing,
        commands: Sequence[tuple[str, str]],
        common: Common | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        long_poll: float = LONG_POLL,
    ) -> None:
        self.webhook_path = settings.webhook_path
        self.dead_letters = DeadLetters(data_dir)
        self._settings = settings
        self._commands = commands
        self._clock = clock
        self._long_poll = long_poll
        # A client of its own: however many replies are being sent, polling goes on.
        self._polling = PollRequest()
        self._bot = connect(settings.bot_token, settings.api_url, self._polling)
        shared = common is not None
        self.courier = Deliveries(
            self._bot, streaming=settings.streaming, shared=shared, clock=clock, sleep=sleep
        )
        self._reach = Reach(settings.bot_token, clock, sleep)
        self._moves = Moves(journal(common, data_dir, MOVES))
        self._common = common
        self._people = People(settings.allow, pairing, self._moves.origin)
        self._pairing = pairing
        self._media = Media(data_dir, self._bot, settings.media_limit, self._say, self._reach)
        welcome = Welcome(self._people, pairing, commands)
        self._parts = Parts(
            inbox,
            self._media,
            self._moves,
            welcome,
            self.dead_letters,
            self._say,
            self._press,
            self.courier.asked_later,
            self._refresh,
            settings.group_context,
        )
        self._webhook: Webhook | None = None  # set while the channel runs in that mode
        self._stands_by = False  # while another node polls, or sees to the webhook
        self._notices: dict[asyncio.Task[None], Chat] = {}

    @property
    def health(self) -> str | None:
        """Why the channel does not work now, None while it does."""
        if self._stands_by:
            return None
        return self._reach.fault or (self._webhook.fault if self._webhook else None)

    @property
    def note(self) -> str | None:
        """What operators may wonder at while all is well."""
        holder = self._common.duty.holder if self._common else None
        if not self._stands_by or holder is None:
            return None
        done = "polling is done" if self.webhook_path is None else "the webhook is seen to"
        return f"{done} by node {holder}"

    @property
    def age(self) -> float:
        """Seconds since Telegram last answered a poll (in webhook mode, a look at the webhook).

        0 while another node sees to that.
        """
        return 0.0 if self._stands_by else self._reach.age

    @property
    def figures(self) -> dict[str, float | str | None]:
        """What operators want to know: counts since the start, ages in seconds, the last failure's reason."""
        courier = self.courier
        return {
            "delivered": courier.delivered,
            "waiting": courier.waiting,
            "failed": courier.failed,
            "floods": courier.floods,
            "dead_letters": self.dead_letters.count,
            "poll_age_seconds": round(self.age, 1),
            "note": self.note,
            "last_failure": courier.failures[-1].reason if courier.failures else None,
        }

    def admit(self, allow: Sequence[str] | None) -> None:
        """Let these talk to us from now on (`Settings.allow`)."""
        self._people.admit(allow)

    async def webhook(self, secret: str | None, body: bytes) -> int:
        """Take in an update that Telegram brings; returns the HTTP status to answer with."""
        return await self._webhook.receive(secret, body) if self._webhook else _NOT_YET

    # -- life ------------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled; trouble with Telegram is waited out, and shows in `health`."""
        self._reach.begin()
        chores: list[asyncio.Task[None]] = []
        try:
            await asyncio.to_thread(self._load)
            await self._bot.request.initialize()
            await self._polling.initialize()
            me = await self._reach.insist(self._bot.get_me)
            work = (self._media.run, self._menu, self._admit)
            chores = [asyncio.create_task(self._chore(chore)) for chore in work]
            await self._serve(self._intake(me), ready)
        finally:
            self._webhook, self._stands_by = None, False
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await self._polling.shutdown()
            if (task := asyncio.current_task()) is not None and task.cancelling():
                await self._close()  # otherwise we are run again, and replies go on being brought meanwhile

    def _intake(self, me: User) -> Intake:
        settings = self._settings
        adapter = Adapter(
            me,
            self._people,
            self._moves,
            [name for name, _ in self._commands],
            groups=settings.groups,
            context=settings.group_context > 0,
            media_limit=settings.media_limit,
        )
        return Intake(adapter, self._parts, self._clock)

    async def _serve(self, intake: Intake, ready: Callable[[], None]) -> None:
        work = self._brought(intake, ready) if self.webhook_path else self._polled(intake, ready)
        if self._common is None:
            await work()
            return
        self._stands_by = True
        ready()  # it is well served by whichever node does the work, and by us once that dies
        await self._common.duty.hold(partial(self._on_duty, work))

    async def _on_duty(self, work: Callable[[], Awaitable[None]]) -> None:
        self._reach.begin()
        self._stands_by = False
        try:
            await work()
        finally:
            self._stands_by = True

    def _brought(self, intake: Intake, ready: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        settings = self._settings
        url = (settings.webhook_url or "").rstrip("/") + (self.webhook_path or "")
        self._webhook = Webhook(self._bot, url, settings.webhook_secret, intake.take, self._reach)
        return partial(self._webhook.run, ready)

    def _polled(self, intake: Intake, ready: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            await self._reach.insist(self._bot.delete_webhook)  # what waits is kept: nothing is dropped
            await poller.run(ready)

        settings = self._settings
        poller = Poller(
            self._polling,
            f"{settings.api_url.rstrip('/')}/bot{settings.bot_token}",
            intake.take,
            self._reach,
            self._bot.delete_webhook,
            long_poll=self._long_poll,
        )
        return work

    def _load(self) -> None:
        self._moves.load()
        self._pairing.refresh()

    async def _refresh(self) -> None:
        if self._common is not None:
            await asyncio.to_thread(self._load)

    async def _chore(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("a part of the Telegram channel broke")

    async def _menu(self) -> None:
        """Show the commands in Telegram's menu; it is no great harm where that fails."""
        menu = [BotCommand(name, summary[:256]) for name, summary in self._commands]
        for _ in range(_MENU_TRIES):
            try:
                await self._bot.set_my_commands(menu)
            except TelegramError as error:
                log.warning("the menu of commands was not set", why=self._reach.clean(error))
                await self._reach.pause(_MENU_PAUSE)
            else:
                return

    async def _admit(self) -> None:
        """Tell everybody whom the owner has let in that they may talk now."""
        approved, loop = asyncio.Event(), asyncio.get_running_loop()
        approved.set()  # somebody may have been let in before we ran
        self._pairing.on_approved = lambda: loop.call_soon_threadsafe(approved.set)
        try:
            while await approved.wait():
                approved.clear()
                for peer in self._pairing.to_tell():
                    self._in_background(of_peer(peer), self._welcome(peer))
        finally:
            self._pairing.on_approved = None

    async def _welcome(self, peer: str) -> None:
        await self.courier.say(of_peer(peer), self._parts.welcome.admitted(peer))
        try:
            await asyncio.to_thread(self._pairing.told, peer)
        except OSError as error:
            log.warning("a guest will be welcomed again at the next start", peer=peer, why=str(error))

    async def _close(self) -> None:
        if self._notices:
            _, late = await asyncio.wait(self._notices, timeout=_GRACE)
            for notice in late:
                notice.cancel()
        await self.courier.close()
        await self._bot.request.shutdown()

    # -- notices ---------------------------------------------------------------------------------

    def _say(self, chat: Chat, text: str, reply_to: int | None = None) -> None:
        """Send a sentence of the channel's own, or the answer to a command, without waiting for it."""
        self._in_background(chat, self.courier.say(chat, text, reply_to))

    def _press(self, pressed: Pressed, said: str, over: bool) -> None:
        self._in_background(pressed.chat, self.courier.press(pressed, said, over=over))

    def _in_background(self, chat: Chat, work: Coroutine[Any, Any, None]) -> None:
        of_chat = sum(other == chat for other in self._notices.values())
        if len(self._notices) >= _NOTICES or of_chat >= _NOTICES_OF_A_CHAT:
            log.warning("too many notices are waiting; one was dropped", chat=chat.id)
            work.close()
            return
        notice = asyncio.create_task(work)
        self._notices[notice] = chat
        notice.add_done_callback(self._said)

    def _said(self, notice: asyncio.Task[None]) -> None:
        del self._notices[notice]
        if not notice.cancelled() and notice.exception():
            log.error("a notice was not brought", exc_info=notice.exception())
