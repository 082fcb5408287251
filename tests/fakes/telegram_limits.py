"""How much a bot may write: flood waits that a test sets, and the published limits where it wants them."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fakes.telegram_checks import retry_after


@dataclass(frozen=True)
class Rates:
    """https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this"""

    private_per_second: int = 1
    group_per_minute: int = 20
    all_per_second: int = 30


@dataclass
class Limits:
    """Counts what is written; a refused call counts for nothing."""

    clock: Callable[[], float]
    rates: Rates | None = None
    _until: dict[int | None, float] = field(default_factory=dict)
    _written: dict[int | None, deque[float]] = field(default_factory=dict)

    def flood(self, chat_id: int | None, seconds: float) -> None:
        """From now on 429 for this chat, or for all of them; 0 ends it."""
        self._until[chat_id] = self.clock() + seconds

    def check(self, chat_id: int, *, counted: bool = True) -> None:
        """Raises `Refusal` (429) with the seconds to wait, rounded up. Messages and edits are `counted`."""
        now = self.clock()
        waits = [until - now for key in (chat_id, None) if (until := self._until.get(key, now)) > now]
        if counted and self.rates:
            allowed = (
                (self.rates.private_per_second, 1.0) if chat_id > 0 else (self.rates.group_per_minute, 60.0)
            )
            for key, (most, window) in {chat_id: allowed, None: (self.rates.all_per_second, 1.0)}.items():
                written = self._written.setdefault(key, deque())
                while written and written[0] <= now - window:
                    written.popleft()
                if len(written) >= most:
                    waits.append(written[0] + window - now)
        if waits:
            raise retry_after(max(1, math.ceil(max(waits))))
        if counted and self.rates:
            for key in (chat_id, None):
                self._written.setdefault(key, deque()).append(now)
