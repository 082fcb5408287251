"""When one model is asked once more, and after how long."""

import random

from gateway.agent.endpoint import Limits
from gateway.agent.model_errors import EmptyReply, ModelError

_FIRST = 0.5  # seconds; doubled each time
_LONGEST = 8.0
_JITTER = 0.5


class Retries:
    """Counts the tries of one question; `started` and `now` are on the same clock, in seconds."""

    def __init__(self, limits: Limits, started: float) -> None:
        self.tried = 0
        self._limits = limits
        self._ends = started + limits.budget
        self._was_empty = False

    def pause(self, error: ModelError, now: float) -> float | None:
        """How long to wait before the next try; None where there is none."""
        self.tried += 1
        if self.tried >= self._limits.tries or not self._may_help(error):
            return None
        asked = error.retry_after or 0.0
        if asked > self._limits.retry_after:
            return None
        backoff = min(_LONGEST, _FIRST * 2 ** (self.tried - 1) + random.uniform(0, _JITTER))
        pause = max(asked, backoff)
        return pause if now + pause < self._ends else None

    def _may_help(self, error: ModelError) -> bool:
        if isinstance(error, EmptyReply):  # once more: some servers do it now and then
            self._was_empty, before = True, self._was_empty
            return not before
        return error.retry
