"""Updates that Telegram brings: each is answered with 200 when it is stored, and not before."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from telegram import Bot

from channels.telegram.polling import WANTED, Take
from channels.telegram.reach import Reach

log = structlog.get_logger(__name__)

_LOOK = 60.0  # seconds between two looks at whether Telegram still brings, and can bring, updates
_STORED, _UNAUTHORIZED, _LATER = 200, 401, 503
CANNOT_BRING = "Telegram cannot bring messages to channels.telegram.webhook_url: {}."


class Webhook:
    """Sets itself, and stays set when we stop: Telegram keeps what it cannot bring for a day."""

    def __init__(self, bot: Bot, url: str, secret: str, take: Take, reach: Reach) -> None:
        self.fault: str | None = None  # why Telegram cannot bring updates, set by each look
        self._bot = bot
        self._url = url
        self._secret = secret.encode()
        self._take = take
        self._reach = reach
        self._failed_at: datetime | None = None  # Telegram's last failure to bring one, at our last look

    async def receive(self, secret: str | None, body: bytes) -> int:
        """Take in what was brought; returns the HTTP status to answer with."""
        given = (secret or "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(given, self._secret):
            return _UNAUTHORIZED
        [done] = await self._take([_parsed(body)])
        return _STORED if done else _LATER  # what is not stored is brought again

    async def run(self, ready: Callable[[], None]) -> None:
        """Set the webhook and see that it stays set, until cancelled."""
        await self._reach.insist(self._set)
        ready()
        while True:
            await self._reach.pause(_LOOK)
            await self._look()

    async def _set(self) -> None:
        await self._bot.set_webhook(self._url, secret_token=self._secret.decode(), allowed_updates=WANTED)

    async def _look(self) -> None:
        info = await self._reach.insist(self._bot.get_webhook_info)
        if info.url != self._url:
            log.warning("the webhook was changed by somebody else; it is set again")
            await self._reach.insist(self._set)
            return
        if not info.pending_update_count:
            self.fault = None
        elif info.last_error_date != self._failed_at:
            self.fault = CANNOT_BRING.format(info.last_error_message)
        self._failed_at = info.last_error_date


def _parsed(body: bytes) -> Any:
    """The update; what is none as a text, which becomes a dead letter: to refuse it would bring it again."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
