"""A session's summaries: what the model no longer sees, in short; written in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from gateway.journal import Journal
from gateway.ledger import OverBudget
from gateway.turn import Recap, Spending
from gateway.turn_run import Shop
from session.events import Event, System, Usage
from session.exchange import Exchange
from session.window import Window

log = structlog.get_logger(__name__)

SECONDS = 180.0  # that a summary may take
LEAST = 4  # messages that are worth a summary
KEPT = 4  # messages that `/compact` leaves as they are
_LONGEST_PAUSE = 32  # turns

Keep = Callable[..., Awaitable[object]]  # stores events, as `gateway.lane.Lane.record` does

NOTHING = "There is nothing to summarise yet."
BUSY = "A summary is being written already."
BEGUN = "I am summarising what was said before the last messages."
DONE = "Summarised: from now on I see the summary of what was said before the last messages."
FAILED = "The summary could not be written."
STOPPED = "The summary was stopped."


class Work(NamedTuple):
    """What a summary is to cover: up to this turn, these exchanges being new to it.

    `instead`: the model sees it instead of all that it covers.
    """

    covers: str
    exchanges: list[Exchange]
    instead: bool


def due(window: Window, room: int | None) -> Work | None:
    """What to sum up now that a turn is over, if anything.

    Once the window is full of what no summary tells of, the older half of that is summed up: before it
    falls out. `room`: how many messages fitted into the model's context, where not all did; what did not
    fit is not shown again.
    """
    limit = window.limit if room is None else room
    new = window.uncovered()
    if sum(exchange.size for exchange in new) < limit:
        return None
    work = _work(new, limit // 2, instead=room is not None)
    return work if work and sum(exchange.size for exchange in work.exchanges) >= LEAST else None


def _work(known: list[Exchange], keep: int, *, instead: bool) -> Work | None:
    """All but the newest, of which so many messages are kept, the newest exchange in any case."""
    covered = known[:-1]
    size = sum(exchange.size for exchange in known[-1:])
    while covered and size + covered[-1].size <= keep:
        size += covered.pop().size
    while covered and covered[-1].turn is None:  # of another program: it has no name to end with
        covered.pop()
    if not covered:
        return None
    return Work(str(covered[-1].turn), [exchange for exchange in covered if not exchange.covered], instead)


class Compaction:
    """At most one summary at a time; no turn waits for it, and its failure is no turn's."""

    __slots__ = ("_failures", "_journal", "_pause", "_task")

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._task: asyncio.Task[None] | None = None
        self._failures = 0  # since the last success
        self._pause = 0  # turns that pass before the next try

    @property
    def busy(self) -> bool:
        """Whether a summary is being written."""
        return self._task is not None and not self._task.done()

    def consider(self, shop: Shop, keep: Keep, room: int | None) -> None:
        """A turn is over: begin a summary where one is due."""
        if self._pause:
            self._pause -= 1
        elif not self.busy and (work := due(self._journal.conversation.window, room)):
            self._begin(shop, keep, work, asked=False)

    async def ask(self, shop: Shop, keep: Keep) -> str:
        """The person wants one now; what to answer. Raises `Refused`."""
        if self.busy:
            return BUSY
        window = self._journal.conversation.window
        if (work := _work(window.known, KEPT, instead=True)) is None:
            return NOTHING
        if not work.exchanges:
            summary = System(name="summary", content=window.summary, covers=work.covers, instead=True)
            await keep([summary], leased=True)
            return DONE
        self._begin(shop, keep, work, asked=True)
        return BEGUN

    def stop(self) -> bool:
        """Write it no further; False where none is being written."""
        if not self.busy or self._task is None:
            return False
        self._pause = 1
        return self._task.cancel()

    async def end(self) -> None:
        """Stop, and wait until that is done, and what was spent is stored."""
        self.stop()
        if self._task is not None:
            await asyncio.wait({self._task})
            await self._journal.quiet()

    def _begin(self, shop: Shop, keep: Keep, work: Work, *, asked: bool) -> None:
        writing = self._write(shop, keep, work, asked)
        self._task = asyncio.create_task(writing, name=f"summary {self._journal.session}")

    async def _write(self, shop: Shop, keep: Keep, work: Work, asked: bool) -> None:
        conversation = self._journal.conversation
        model = conversation.settings.get("model")
        recap = Recap(
            self._journal.session,
            work.exchanges,
            conversation.window.summary,
            model if isinstance(model, str) else None,
        )
        spent: list[Usage] = []
        storing = False
        try:
            await shop.account.check()
            async with asyncio.timeout(SECONDS):
                summary = await _summary(shop, recap, spent)
            batch: list[Event] = [replace(summary, covers=work.covers, instead=work.instead or None)]
            storing = True  # from here on it may be on its way to the disk, with what was spent
            await keep([*batch, System(name="note", content=DONE)] if asked else batch, leased=True)
        except asyncio.CancelledError:
            if not storing:
                self._give_up(STOPPED, spent, asked)
            raise
        except OverBudget as refusal:
            self._pause = _LONGEST_PAUSE
            self._give_up(str(refusal), spent, asked)
        except Exception as error:
            told = log.warning if spent else log.info
            told("no summary", session=recap.session, error=f"{type(error).__name__}: {error}")
            self._failures += 1
            self._pause = min(2**self._failures, _LONGEST_PAUSE)
            self._give_up(getattr(error, "public", FAILED), spent, asked)
        else:
            self._failures = 0

    def _give_up(self, why: str, spent: list[Usage], asked: bool) -> None:
        """What was spent on it counts all the same, and whoever asked is told; nobody waits for the disk."""
        batch: list[Event] = []
        if spent:
            batch.append(System(name="summary_failed", content=why, usage=spent[-1]))
        if asked:
            batch.append(System(name="note", content=why))
        if batch:
            self._journal.append(batch, leased=True)


async def _summary(shop: Shop, recap: Recap, spent: list[Usage]) -> System:
    async with aclosing(shop.runner.summarise(recap)) as items:
        async for item in items:
            match item:
                case Spending(used):
                    spent.append(used)
                case [System() as summary]:
                    return summary
    raise RuntimeError("the runner gave no summary")
