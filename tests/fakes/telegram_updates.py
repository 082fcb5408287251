"""What waits for the bot: the queue of updates, long polls on it, and the webhook that empties it.

The rules are those of the public Bot API server (`Client::do_get_updates`, `WebhookActor`, TDLib's `TQueue`).
An offset confirms everything below it. An offset more than 10 beyond the end is not believed, and answered
from the head of the queue, again and again. A poll that has to wait ends the one that waits already, with
409; the poll of a dead client keeps its place until then.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from tests.fakes.telegram_checks import Json, Refusal

KEPT = 24 * 3600  # seconds
BY_DEFAULT_OFF = frozenset({"chat_member", "message_reaction", "message_reaction_count"})
OTHER_POLL = (
    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
)
SET_WEBHOOK = "Conflict: terminated by setWebhook request"
HAS_WEBHOOK = (
    "Conflict: can't use getUpdates method while webhook is active;"
    " use deleteWebhook to delete the webhook first"
)


@dataclass(frozen=True)
class Update:
    id: int
    body: Json  # with its update_id
    lane: int  # updates of one lane (a chat, a user) reach a webhook one after the other
    expires: float


class Updates:
    """`strict_pace` adds what the real server does to clients in a hurry: the same offset again within 0.5 s
    gets one update, within 3 s waits at least 3 s; a second 409 within 3 s comes 3 s late."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.next_id = random.randint(100_000_000, 900_000_000)
        self.pending: deque[Update] = deque()
        self.allowed: frozenset[str] | None = None  # None: all but BY_DEFAULT_OFF
        self.strict_pace = False
        self.webhook: Webhook | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._poll: asyncio.Future[None] | None = None
        self._last_offset: tuple[int, float] | None = None
        self._last_conflict = float("-inf")

    def restart_ids(self, first: int | None = None) -> None:
        """As after a week without updates: the numbers begin somewhere else, perhaps lower."""
        if self.pending:
            raise ValueError("update ids restart only when nothing is pending")
        self.next_id = random.randint(1_000, 900_000_000) if first is None else first

    def allow(self, kinds: list[str] | None) -> None:
        """As `allowed_updates`: None keeps the last setting, an empty list is the default."""
        if kinds is not None:
            self.allowed = frozenset(kinds) or None

    def push(self, kind: str, body: Json, lane: int) -> Update | None:
        """None where the bot has not asked for that kind of update."""
        wanted = kind in self.allowed if self.allowed is not None else kind not in BY_DEFAULT_OFF
        return self.push_raw({kind: body}, lane) if wanted else None

    def push_raw(self, body: Json, lane: int = 0) -> Update:
        """Whatever `body` holds: also what no client can parse."""
        update = Update(self.next_id, {"update_id": self.next_id} | body, lane, self.clock() + KEPT)
        self.next_id += 1
        self.pending.append(update)
        if self._poll and not self._poll.done():
            self._poll.set_result(None)
        if self.webhook:
            self.webhook.wake(lane)
        self.on_change()
        return update

    def forget(self, update: Update) -> None:
        if update in self.pending:
            self.pending.remove(update)

    def expire(self) -> None:
        now = self.clock()
        while self.pending and self.pending[0].expires < now:
            self.pending.popleft()

    async def get(self, offset: int, limit: int, timeout: float) -> list[Json]:
        """`getUpdates`. Raises `Refusal` (409) where a webhook or another poll is in the way."""
        if self.webhook:
            await self._conflict(HAS_WEBHOOK)
        limit, timeout = self._paced(offset, min(max(limit, 1), 100), min(max(timeout, 0), 50))
        ready = self._take(offset, limit)
        if not ready and timeout and await self._wait(timeout):
            ready = self._take(offset, limit)
        return ready

    async def _wait(self, timeout: float) -> bool:
        self.end_poll(OTHER_POLL)
        poll = self._poll = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await poll
            return True
        except TimeoutError:
            return False
        except Refusal as refusal:
            await self._conflict(refusal.description)
            raise
        finally:
            if self._poll is poll:
                self._poll = None

    def end_poll(self, why: str) -> None:
        if self._poll and not self._poll.done():
            self._poll.set_exception(Refusal(409, why))
        self._poll = None

    @property
    def is_polled(self) -> bool:
        return self._poll is not None and not self._poll.done()

    def _take(self, offset: int, limit: int) -> list[Json]:
        self.expire()
        if offset < 0:
            while len(self.pending) > -offset:
                self.pending.popleft()
        elif offset <= self.next_id + 10:
            while self.pending and self.pending[0].id < offset:
                self.pending.popleft()
        return [update.body for update, _ in zip(self.pending, range(limit), strict=False)]

    def _paced(self, offset: int, limit: int, timeout: float) -> tuple[int, float]:
        now = self.clock()
        last, self._last_offset = self._last_offset, (offset, now)
        if self.strict_pace and last and last[0] == offset:
            if now < last[1] + 3:
                timeout = max(timeout, 3.0)
            if now < last[1] + 0.5:
                limit = 1
        return limit, timeout

    async def _conflict(self, why: str) -> None:
        now = self.clock()
        if self.strict_pace and now < self._last_conflict + 3:
            await asyncio.sleep(3)
        else:
            self._last_conflict = now
        raise Refusal(409, why)


class Webhook:
    """POSTs updates, one at a time for each lane; what is not answered with 2xx is sent again: at once, then
    with pauses that double, until it is a day old.

    retry_pause: seconds before the third try (the real server: 2); at most 30 times that.
    """

    def __init__(
        self, updates: Updates, url: str, secret: str, *, connections: int, retry_pause: float
    ) -> None:
        self.updates = updates
        self.url = url
        self.secret = secret
        self.max_connections = connections
        self.retry_pause = retry_pause
        self.last_error: tuple[float, str] | None = None
        self.tries = 0
        self._free = asyncio.Semaphore(connections)
        self._lanes: dict[int, asyncio.Task[None]] = {}
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60))
        for lane in {update.lane for update in updates.pending}:
            self.wake(lane)

    def wake(self, lane: int) -> None:
        if lane not in self._lanes:
            self._lanes[lane] = asyncio.create_task(self._empty(lane))

    async def close(self) -> None:
        tasks = list(self._lanes.values())
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # also where the server ends while it carries out `setWebhook`
            await self._session.close()

    async def _empty(self, lane: int) -> None:
        try:
            while update := next((u for u in self.updates.pending if u.lane == lane), None):
                await self._deliver(update)
                self.updates.forget(update)
                self.updates.on_change()
        finally:
            self._lanes.pop(lane, None)

    async def _deliver(self, update: Update) -> None:
        failures = 0
        while self.updates.clock() < update.expires:
            async with self._free:
                asked_for = await self._post(update)
            self.updates.on_change()
            if asked_for is None:
                return
            doubled = self.retry_pause * min(2 ** (failures - 1), 30) if failures else 0.0
            failures += 1
            await asyncio.sleep(max(asked_for, doubled))

    async def _post(self, update: Update) -> float | None:
        """None if it was taken, otherwise the pause that the receiver asks for, in seconds."""
        headers = {"X-Telegram-Bot-Api-Secret-Token": self.secret} if self.secret else {}
        self.tries += 1
        try:
            async with self._session.post(self.url, json=update.body, headers=headers) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            self.last_error = (self.updates.clock(), f"Connection failed: {type(problem).__name__}")
            return 0.0
        if answer.status // 100 == 2:
            return None
        why = f"Wrong response from the webhook: {answer.status} {answer.reason}"
        self.last_error = (self.updates.clock(), why)
        asked_for = answer.headers.get("Retry-After", "0")
        return float(asked_for) if asked_for.isdigit() else 0.0
