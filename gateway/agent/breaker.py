"""Whether a model is passed over for a while, because it failed again and again."""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from session.ids import SessionId

FAILURES = 3  # without a success in between
_OF_ONE_SESSION = 2  # at most that many of them count: a session of its own can never open it
_WITHIN = 300.0  # seconds; older failures are forgotten
_FIRST_PAUSE = 30.0  # seconds until one question tries again; doubled each time
_LONGEST_PAUSE = 300.0

State = Literal["closed", "open", "half-open"]


class _Failure(NamedTuple):
    at: float
    session: SessionId
    general: bool


class Breaker:
    """Closed: asked as always. Open: passed over. Half-open: one question at a time finds out.

    It opens after three failures without a success in between, seen by two sessions at least: what one of
    them asks may be what a server breaks at. Only failures to connect (`general`), which have nothing to do
    with what was asked, open it whoever saw them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.why = ""  # the failure that opened it; empty while it is closed
        self._clock = clock
        self._failures: deque[_Failure] = deque(maxlen=64)
        self._pause = 0.0  # 0 while it is closed
        self._until = 0.0
        self._trying = False

    @property
    def state(self) -> State:
        """What holds at this moment."""
        if not self._pause:
            return "closed"
        return "open" if self._clock() < self._until else "half-open"

    @property
    def passes_over(self) -> bool:
        """Whether another model is to be asked first."""
        return self.state == "open" or (self.state == "half-open" and self._trying)

    def begin(self) -> None:
        """A question goes to the model; `end` follows, whatever comes of it."""
        self._trying = True

    def end(self) -> None:
        """The question is over."""
        self._trying = False

    def succeeded(self) -> bool:
        """It answers; says whether it was passed over before."""
        was_open, self._pause, self.why = bool(self._pause), 0.0, ""
        self._failures.clear()
        return was_open

    def failed(self, session: SessionId, why: str, *, general: bool) -> float | None:
        """It did not answer; gives the seconds for which it is passed over where that begins, else None."""
        now = self._clock()
        if self.state == "open":
            return None  # it was the last that could be asked
        self._failures.append(_Failure(now, session, general))
        while now - self._failures[0].at > _WITHIN:
            self._failures.popleft()
        if not (self._pause or self._enough()):
            return None
        begins = not self._pause
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        self._until = now + self._pause
        self.why = why
        return self._pause if begins else None

    def _enough(self) -> bool:
        if sum(failure.general for failure in self._failures) >= FAILURES:
            return True
        seen = Counter(failure.session for failure in self._failures)
        return sum(min(count, _OF_ONE_SESSION) for count in seen.values()) >= FAILURES
