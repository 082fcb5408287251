"""Whether the Bot API answers us: how long to wait after each kind of trouble, and what to tell the owner."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple, TypeVar

import structlog
from telegram.error import BadRequest, Conflict, Forbidden, InvalidToken, RetryAfter, TelegramError

from channels.telegram.errors import without

log = structlog.get_logger(__name__)

T = TypeVar("T")

DEAF = 90.0  # seconds without an answer after which the channel counts as down
GRACE = 30.0  # seconds after a start in which the poll of the process before us may still be alive
_BY_OWNER = 60.0  # seconds between two tries of what only the owner can mend
_CONFLICT = 3.0
_FIRST, _LONGEST = 1.0, 20.0  # seconds; jittered, so that we hear again within 35 s of Telegram's return
_REASON = 200  # characters
_STEP = 30.0  # seconds for one call that is made at a start
_NOTHING = "no error was seen"
_PAGE = re.compile(r"\. Parsing the server response .*", re.DOTALL)  # which the library appends whole
_TOKEN = re.compile(r"\d+:[A-Za-z0-9_-]{20,}")

BAD_TOKEN = (
    "Telegram does not take the bot token ({}). Check TELEGRAM_BOT_TOKEN (channels.telegram.bot_token) "
    "against what @BotFather shows, and channels.telegram.api_url. It is tried again each minute."
)
OTHER_PROGRAM = (
    "Another program takes this bot's messages ({}). Stop it, or get a new token from @BotFather and use "
    "that one here."
)
REFUSED = "Telegram refuses what the gateway asks for ({}). It is tried again each minute."
SILENT = "Telegram has not answered for {:.0f} s ({})."


class Trouble(NamedTuple):
    """What came of a call: how long to wait, and what its owner must mend; None for what passes by itself."""

    pause: float
    fault: str | None
    reason: str


class Reach:
    """One channel's contact with the Bot API. `clock` counts seconds that never jump."""

    def __init__(
        self,
        token: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._token = token
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self._heard = self._began  # when a call was last completed, or when we began
        self._failures = 0  # in a row
        self._fault: str | None = None
        self._reason = _NOTHING

    def begin(self) -> None:
        """The channel starts, or starts again."""
        self._began = self._heard = self._clock()
        self._failures, self._fault = 0, None

    def heard(self) -> None:
        """A call was completed."""
        self._heard = self._clock()
        if self._failures:
            log.info("Telegram answers again", failures=self._failures)
        self._failures, self._fault, self._reason = 0, None, _NOTHING

    @property
    def age(self) -> float:
        """Seconds since a call was last completed."""
        return self._clock() - self._heard

    @property
    def fault(self) -> str | None:
        """Why the channel does not work now, None while it does."""
        if self._fault is None and self.age > DEAF:
            return SILENT.format(self.age, self._reason)
        return self._fault

    async def mend(self, error: Exception) -> None:
        """Take note of a call that failed, and wait for as long as its kind of trouble wants."""
        self._failures += 1
        trouble = self._judge(error)
        if trouble.fault != self._fault or self._failures in (1, 10) or self._failures % 100 == 0:
            level = log.error if trouble.fault else log.warning
            level(
                "no contact to Telegram",
                why=trouble.fault or trouble.reason,
                again_in=round(trouble.pause, 1),
            )
        self._fault, self._reason = trouble.fault, trouble.reason
        await self._sleep(trouble.pause)

    async def pause(self, seconds: float) -> None:
        """Wait, by the channel's own time."""
        await self._sleep(seconds)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call until it is carried out."""
        while True:
            try:
                async with asyncio.timeout(_STEP):
                    result = await call()
            except Exception as error:
                await self.mend(error)
            else:
                self.heard()
                return result

    def _judge(self, error: Exception) -> Trouble:
        reason = self.clean(error)
        match error:
            case InvalidToken():
                return Trouble(_BY_OWNER, BAD_TOKEN.format(reason), reason)
            case Conflict():
                late = self._clock() - self._began > GRACE
                return Trouble(_jittered(_CONFLICT), OTHER_PROGRAM.format(reason) if late else None, reason)
            case RetryAfter(retry_after=wait):
                seconds = wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
                return Trouble(seconds + random.uniform(0, 1), None, reason)
            case BadRequest() | Forbidden():
                return Trouble(_BY_OWNER, REFUSED.format(reason), reason)
        return Trouble(_jittered(min(_FIRST * 2 ** min(self._failures - 1, 10), _LONGEST)), None, reason)

    def clean(self, error: BaseException) -> str:
        """An error's own words without the token, which the library's may hold; short, and one line."""
        text = error.message if isinstance(error, TelegramError) else f"{type(error).__name__} {error}"
        text = _TOKEN.sub("<token>", without(self._token, _PAGE.sub("", text)))
        return " ".join(text.split())[:_REASON] or type(error).__name__


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)
