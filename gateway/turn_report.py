"""How one attempt at a turn went: a line in the log, and what is counted."""

from __future__ import annotations

from time import monotonic

import structlog

from gateway import counters
from session import ids
from session.conversation import Attempt
from session.events import Assistant, System
from session.ids import SessionId

log = structlog.get_logger(__name__)


class TurnReport:
    """Looks at the clock along the way. `log` has session, peer and turn bound to it."""

    def __init__(self, session: SessionId, attempt: Attempt) -> None:
        self._agent, peer = ids.parse(session)
        self.bound = {"session": session, "peer": f"{peer.provider}:{peer.peer_id}", "turn": attempt.turn}
        self.log = log.bind(**self.bound)
        self._attempt = attempt.number
        self._began = monotonic()
        self._slot: float | None = None
        self._spoke: float | None = None

    def begins(self) -> None:
        """It has its slot. What is logged in this task from now on tells whose turn it is."""
        structlog.contextvars.bind_contextvars(**self.bound)
        self._slot = monotonic()

    def speaks(self) -> None:
        """There is something to read."""
        if self._spoke is None:
            self._spoke = monotonic()
            counters.FIRST_TOKEN_SECONDS.observe(self._spoke - self._began)

    def ends(self, closing: Assistant | System | None) -> None:
        """It is over, with this event; None where it is left open for the next start."""
        seconds = monotonic() - self._began
        outcome = _outcome(closing)
        counters.TURNS.add(self._agent, outcome)
        counters.TURN_SECONDS.observe(seconds)
        used = closing.usage if closing else None
        known = {
            "waited": None if self._slot is None else round(self._slot - self._began, 3),
            "first_token": None if self._spoke is None else round(self._spoke - self._began, 3),
            "seconds": round(seconds, 3),
            "model": closing.model if closing else None,
            "input": used.input if used else None,
            "output": used.output if used else None,
            "cost": used.cost if used else None,
            "attempt": self._attempt if self._attempt > 1 else None,
        }
        self.log.info(
            "turn", outcome=outcome, **{key: value for key, value in known.items() if value is not None}
        )


def _outcome(closing: Assistant | System | None) -> str:
    match closing:
        case None:
            return "left_open"
        case System():
            return "failed"
        case Assistant(finish="stop"):
            return "completed"
        case Assistant(finish=finish):
            return finish or "completed"
