"""What every session and every agent used today (UTC), and what budgets leave of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from gateway import counters
from gateway.usage import Day, midnight, money, recorded, shown, usage_of
from session import ids
from session.events import Event, Usage, closes, timestamp
from session.ids import SessionId
from session.protocols import TranscriptStore

if TYPE_CHECKING:
    from gateway.config import Allowance, Budget

log = structlog.get_logger(__name__)

_AGAIN = 5.0  # seconds until transcripts that could not be listed are tried again


class OverBudget(Exception):
    """No model may be asked any more; the text is for the person."""

    @property
    def public(self) -> str:
        """The text."""
        return str(self)


def _now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """What every session and every agent used today, and may still use.

    What this process stores comes in by `Account.count`. What earlier ones stored is read once, as soon as
    an agent has a budget; its turns wait for that, so that a restart gives nobody a new budget. What other
    nodes store meanwhile they say (`heard`).
    """

    def __init__(self, store: TranscriptStore, clock: Callable[[], datetime] = _now) -> None:
        self._store = store
        self._clock = clock
        self._began = timestamp(clock())  # what was stored from now on is counted already
        self._day = midnight(clock())
        self._budgets: dict[str, Budget] = {}
        self._sessions: defaultdict[SessionId, Usage] = defaultdict(Usage)
        self._agents: defaultdict[str, Usage] = defaultdict(Usage)
        self._running: dict[SessionId, Usage] = {}  # what turns took that are not closed yet
        self._reading: asyncio.Task[None] | None = None
        self.tell: Callable[[SessionId, Usage], None] | None = None  # set where there are other nodes

    def limit(self, budgets: Mapping[str, Budget]) -> None:
        """Each agent's budget from now on."""
        self._budgets = {
            agent: budget
            for agent, budget in budgets.items()
            if _bounded(budget.peer) or _bounded(budget.agent)
        }

    def account(self, session: SessionId) -> Account:
        """One session's view."""
        return Account(self, session)

    async def ready(self) -> None:
        """Wait until it is known what earlier processes used today; at once where there is no budget."""
        if not self._budgets:
            return
        while True:
            if self._reading is None:
                self._reading = asyncio.create_task(self._read(), name="usage of the day")
            await asyncio.shield(reading := self._reading)
            if reading is self._reading:
                return

    async def _read(self) -> None:
        while True:
            day = self._today()
            try:
                found = await _between(self._store, day, self._began)
            except OSError as error:
                log.warning("the usage of the day cannot be read", error=str(error), again_in=_AGAIN)
                await asyncio.sleep(_AGAIN)
                continue
            if self._today() == day and self._reading is asyncio.current_task():
                for session, used in found.items():
                    self._add(session, used)
            return

    def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()

    def _today(self) -> datetime:
        if (day := midnight(self._clock())) != self._day:
            self._day = day
            self._sessions.clear()
            self._agents.clear()
        return day

    def _add(self, session: SessionId, used: Usage) -> None:
        self._sessions[session] += used
        self._agents[ids.parse(session)[0]] += used

    def count(self, session: SessionId, event: Event) -> None:
        """An event was stored."""
        if used := usage_of(event):
            self._today()
            self._add(session, used)
            agent = ids.parse(session)[0]
            if self.tell and agent in self._budgets:
                self.tell(session, used)
            counters.TOKENS.add(agent, "input", by=used.input)
            counters.TOKENS.add(agent, "output", by=used.output)
            if used.cost:
                counters.COST.add(agent, by=used.cost)
        if closes(event) is not None:
            self._running.pop(session, None)

    def heard(self, session: SessionId, used: Usage) -> None:
        """Another node stored an event that says so."""
        self._today()
        self._add(session, used)

    def doubt(self) -> None:
        """Something that other nodes said may be lost: what was used today is read again."""
        self._reading, self._began = None, timestamp(self._clock())
        self._sessions.clear()
        self._agents.clear()

    def spend(self, session: SessionId, used: Usage | None) -> None:
        """What the session's turn under way took so far; None where there is none any more."""
        if used is None:
            self._running.pop(session, None)
        else:
            self._running[session] = used

    def budget(self, session: SessionId) -> Budget | None:
        """What the session's agent may use, where that is bounded."""
        return self._budgets.get(ids.parse(session)[0])

    async def today(self, session: SessionId) -> str:
        """What the session used today, and may, for people; raises `OSError`."""
        day = Day(self._clock())
        await self._store.recent(session, day.enough)
        budget = self.budget(session)
        used = day.used + self._running.get(session, Usage())
        return shown(used, budget.peer if budget else None)

    def refusal(self, session: SessionId) -> str | None:
        """Why no model may be asked for this session, in a sentence for the person; None where one may."""
        agent = ids.parse(session)[0]
        if (budget := self._budgets.get(agent)) is None:
            return None
        day = self._today()
        mine = self._sessions[session] + self._running.get(session, Usage())
        running = [used for other, used in self._running.items() if ids.parse(other)[0] == agent]
        everybodys = sum(running, self._agents[agent])
        if limit := _used_up(budget.peer, mine):
            return f"The budget of this conversation, {limit}, is used up for today. {self._renewal(day)}"
        if limit := _used_up(budget.agent, everybodys):
            whose = "The assistant's budget for all conversations together"
            return f"{whose}, {limit}, is used up for today. {self._renewal(day)}"
        return None

    def _renewal(self, day: datetime) -> str:
        minutes = -((self._clock() - day - timedelta(days=1)) // timedelta(minutes=1))
        left = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
        return f"There will be more at midnight UTC, in {left}."


class Account:
    """One session's hold on the ledger."""

    __slots__ = ("_ledger", "_session")

    def __init__(self, ledger: Ledger, session: SessionId) -> None:
        self._ledger = ledger
        self._session = session

    def count(self, event: Event) -> None:
        """An event of the session was stored."""
        self._ledger.count(self._session, event)

    def spend(self, used: Usage | None) -> None:
        """What the turn under way took so far; None where there is none any more."""
        self._ledger.spend(self._session, used)

    async def check(self) -> None:
        """Wait until it is known what was used today; raises `OverBudget` where no model may be asked."""
        if self._ledger.budget(self._session) is not None:
            await self._ledger.ready()
            self.still()

    def still(self) -> None:
        """Raises `OverBudget` where no model may be asked any more."""
        if refusal := self._ledger.refusal(self._session):
            counters.REFUSED.add(ids.parse(self._session)[0])
            raise OverBudget(refusal)


def _bounded(allowance: Allowance) -> bool:
    return allowance.tokens is not None or allowance.money is not None


def _used_up(allowance: Allowance, used: Usage) -> str | None:
    """What there was, where nothing is left of it."""
    if allowance.tokens is not None and used.tokens >= allowance.tokens:
        return f"{allowance.tokens:,} tokens"
    if allowance.money is not None and (used.cost or 0.0) >= allowance.money:
        return f"{money(allowance.money)} in money"
    return None


async def _between(store: TranscriptStore, since: datetime, until: str) -> dict[SessionId, Usage]:
    """What each session used from `since` on and before `until`, as far as it can be read."""
    first, found = timestamp(since), dict[SessionId, Usage]()
    for entry in await store.listing():
        if entry.modified < since.timestamp():
            continue
        try:
            async for event in recorded(store, entry.session):
                if first <= event.ts < until and event.usage:
                    found[entry.session] = found.get(entry.session, Usage()) + event.usage
        except OSError as error:
            log.warning("a transcript cannot be read", session=entry.session, error=str(error))
    return found
