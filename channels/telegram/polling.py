"""Our own `getUpdates` loop: the offset moves when everything below it is stored, and not before.

The library's own loop confirms what is only in memory, and spins on an update that it cannot parse.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from telegram.error import Conflict, TelegramError

from channels.telegram.reach import Reach
from channels.telegram.request import Request

WANTED = ("message", "edited_message", "callback_query")
LONG_POLL = 20.0  # seconds that Telegram may keep a request waiting; it cuts at 50
_MARGIN = 10.0  # seconds more that we wait for the answer: a half-open connection makes us deaf for 30 in all
_HELD = 1.0  # seconds until what could not be stored is tried again
_BATCH = 100

Take = Callable[
    [Sequence[Any]], Awaitable[list[bool]]
]  # stores updates, says of each whether it is done with


class PollRequest(Request):
    """An HTTP client that does not log what it cannot parse: a proxy's page, or people's messages."""

    @staticmethod
    def parse_json_payload(payload: bytes) -> Any:
        """Raise `TelegramError` for what is no answer of the Bot API."""
        try:
            answer = json.loads(payload.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise TelegramError("the answer is no JSON") from None
        if not isinstance(answer, dict):
            raise TelegramError("the answer is no JSON object")
        return answer


class Poller:
    """Asks for updates and has them taken in. `root` is the Bot API's address with the token."""

    def __init__(
        self,
        request: Request,
        root: str,
        take: Take,
        reach: Reach,
        remove_webhook: Callable[[], Awaitable[object]],
        *,
        long_poll: float = LONG_POLL,
        margin: float = _MARGIN,
    ) -> None:
        self._request = request
        self._root = root
        self._take = take
        self._reach = reach
        self._remove_webhook = remove_webhook
        self._long_poll = long_poll
        self._margin = margin

    async def run(self, ready: Callable[[], None]) -> None:
        """Poll until cancelled; `ready` is called after the first answer."""
        offset: int | None = None  # none of an earlier process: Telegram knows what is confirmed
        told = False
        at_once = True  # to know soon that all is well; not after a 409, which only a long poll can get
        while True:
            try:
                updates = await self._ask(offset, 0 if at_once else self._long_poll)
            except Exception as error:
                await self._reach.mend(error)
                at_once = not isinstance(error, Conflict)
                if isinstance(error, Conflict) and "webhook" in error.message:
                    await self._without_webhook()
                continue
            self._reach.heard()
            at_once = False
            if not told:
                told = True
                ready()
            # An empty answer confirms what is below the offset. Without one from then on, none of an old
            # numbering can confirm what is new: the numbers begin anew after a week without updates.
            offset = await self._taken(updates, offset) if updates else None

    async def _ask(self, offset: int | None, seconds: float) -> list[Any]:
        wanted = json.dumps(WANTED)
        asked = {"timeout": f"{seconds:g}", "limit": _BATCH, "allowed_updates": wanted}
        if offset is not None:
            asked["offset"] = offset
        patience = seconds + self._margin
        async with asyncio.timeout(patience):  # the client's own limit is one for each piece of the answer
            # `Bot.get_updates` parses all of them, and fails for all where it fails for one.
            answer: Any = await self._request.post(
                f"{self._root}/getUpdates?{urlencode(asked)}", read_timeout=patience
            )
        if not isinstance(answer, list):
            raise TelegramError("the answer is no list of updates")
        return answer

    async def _taken(self, updates: list[Any], offset: int | None) -> int | None:
        """Have the updates taken in; returns the offset that confirms those before the first that is not."""
        done = await self._take(updates)
        count = done.index(False) if False in done else len(done)
        ids = [id for update in updates[:count] if (id := _id(update)) is not None]
        if count < len(updates) or not ids:
            await self._reach.pause(_HELD)
        return ids[-1] + 1 if ids else offset

    async def _without_webhook(self) -> None:
        try:
            await self._remove_webhook()
        except TelegramError as error:
            await self._reach.mend(error)


def _id(update: Any) -> int | None:
    id = update.get("update_id") if isinstance(update, dict) else None
    return id if type(id) is int else None
