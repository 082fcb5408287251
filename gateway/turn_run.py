"""One attempt at one turn: from its slot to its closing event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import NamedTuple

from channels.base import Approval, Delta, Started
from gateway.journal import Journal
from gateway.ledger import Account, OverBudget
from gateway.questions import Questions
from gateway.turn import Ask, ContextUse, Runner, Spending, TurnEvent, of_turn
from gateway.turn_report import TurnReport
from session.conversation import Attempt
from session.errors import LeaseLost, StorageError
from session.events import Assistant, Event, System, ToolCall, ToolResult, Usage, User, closes, stamped

ATTEMPTS = 3
WALL_SECONDS = 300.0  # one attempt at a turn, tools included, waiting for the person or the disk not
_RETRY_SECONDS = 1.0
_BYTES_A_TOKEN = 4  # of a reply that was broken off, whose usage nobody reports

INTERRUPTED = "The tool was interrupted; whether it had an effect is not known."
GAVE_UP = "Sorry, I could not answer this: I was interrupted three times while trying. Please ask again."
TOO_LONG = "Sorry, this took longer than five minutes and was ended. Please ask again, or ask for less."
BROKEN = "Sorry, something went wrong inside the gateway while answering. Please ask again."


class Shop(NamedTuple):
    """What every turn of a session is run with."""

    journal: Journal
    runner: Runner
    slots: asyncio.Semaphore
    account: Account
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class TurnRun:
    """A `gateway.turn.Person` for the runner. It works as soon as it is made, in a task of its own.

    `steered` gives what the turn takes in on its way.
    """

    def __init__(self, attempt: Attempt, shop: Shop, steered: Callable[[], list[User]]) -> None:
        self.attempt = attempt
        self.stopped = False  # by the person; set by `stop`
        self.has_slot = False
        self.context: ContextUse | None = None  # after the first answer of the model
        self._journal = shop.journal
        self._runner = shop.runner
        self._slots = shop.slots
        self._steered = steered
        self._account = shop.account
        self._sleep = shop.sleep
        self._broken_off = False  # set by `break_off`
        self.lost = False  # another node goes on with it; set by `lose` or a refused append
        self._spent: Usage | None = None
        self._closing: Assistant | System | None = None
        self._limit: asyncio.Timeout | None = None  # set while the runner works
        self._pauses = 0  # how many things the limit does not count at this moment
        self._left = 0.0  # seconds that the limit had left when the first of them began
        self._waiting = 0  # how many of the turn's tools wait for the person
        self._questions = Questions(attempt.turn, shop.journal, shop.sleep)
        self._report = TurnReport(self._journal.session, attempt)
        self._log = self._report.log
        self._task = asyncio.create_task(self._run(), name=f"turn {attempt.turn}")

    # -- from outside ----------------------------------------------------------------------------

    async def over(self) -> None:
        """Wait until the turn has its one closing event, or was broken off."""
        await asyncio.wait({self._task})
        try:
            await self._settle()
        except LeaseLost:
            pass  # `_lost` says so
        if self.lost:
            _fault(self._task)
            self._log.info("another node goes on with the turn")
        self._account.spend(None)
        self._report.ends(self._closing)

    def stop(self) -> bool:
        """The person wants no more of it; False where it is over already."""
        if self._task.done() or self.stopped:
            return False
        self.stopped = True
        self._task.cancel()
        return True

    def break_off(self) -> None:
        """Leave the turn open: the next start goes on with it."""
        self._broken_off = True
        self._task.cancel()

    def lose(self) -> None:
        """Another node runs the session's turns: write nothing more, this turn's end neither."""
        self.lost = True
        self._task.cancel()

    async def approve(self, call_id: str, allow: bool, id: str | None = None) -> None:
        """The person's word on a tool call, as message `id`; raises `Refused` where none waits for it."""
        await self._journal.fresh(self.attempt)
        await self._questions.answer(call_id, allow, id)

    @property
    def asked(self) -> list[Approval]:
        """What waits for the person's word, oldest first."""
        return self._questions.open

    @property
    def only_waits(self) -> bool:
        """Whether nothing is lost when it is broken off: it waits for its slot, or for the person alone."""
        unfinished = len(self._journal.conversation.unfinished_calls)
        return not self.has_slot and (self._limit is None or len(self._questions) >= unfinished)

    # -- what the runner may ask -----------------------------------------------------------------

    def more(self) -> list[User]:
        """The messages that the turn takes in now; raises `OverBudget` where it may ask no more."""
        self._account.still()
        messages = self._steered()
        if messages:
            ids = tuple(str(message.id) for message in messages)
            self.attempt = self.attempt._replace(messages=self.attempt.messages + ids)
            steered = System(name="steered", turn=self.attempt.turn, messages=ids)
            self._journal.append([steered], sync=False, leased=True)
            self._journal.conversation.steer(self.attempt.turn, ids)
        return messages

    async def allows(self, call: ToolCall) -> bool:
        """Ask the person, who has five minutes; the turn gives its slot to others meanwhile."""
        with self._untimed():
            async with self._without_slot():
                return await self._questions.ask(call, self._keep)

    @asynccontextmanager
    async def _without_slot(self) -> AsyncIterator[None]:
        """Others may run while the turn waits for the person; what is broken off needs its slot no more."""
        self._waiting += 1
        self._release()
        try:
            yield
        finally:
            self._waiting -= 1
        if not self._waiting:
            await self._acquire()

    async def _acquire(self) -> None:
        await self._slots.acquire()
        if self.has_slot or self._waiting:
            self._slots.release()  # two tools were allowed at once, or another one asks meanwhile
        else:
            self.has_slot = True

    def _release(self) -> None:
        if self.has_slot:
            self.has_slot = False
            self._slots.release()

    # -- the turn --------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Answer the turn. Whatever ends it early, `_settle` closes it."""
        if self.attempt.number > ATTEMPTS:
            await self._close_calls(INTERRUPTED)
            await self._keep([_failed(GAVE_UP)])
            return
        await self._close_calls(INTERRUPTED, but=self._runner.repeatable)
        await self._account.check()
        await self._acquire()
        self._report.begins()
        try:
            ask = await self._begin()
            async with asyncio.timeout(WALL_SECONDS) as self._limit, aclosing(self._runner.run(ask)) as items:
                async for item in items:
                    match item:
                        case list():
                            await self._keep(item)
                        case Spending(used):
                            self._spent = used
                            self._account.spend(used)
                        case ContextUse():
                            self.context = item
                        case _:
                            if isinstance(item, Delta):
                                self._report.speaks()
                            self._journal.feed.publish(item)
        finally:
            self._limit = None
            self._release()

    async def _begin(self) -> Ask:
        turn, messages, number = self.attempt
        begun = System(name="started", turn=turn, messages=messages, attempt=number)
        if self._journal.shared:
            await self._keep([begun])  # where another node has the turn by now, nothing is asked or sent
        else:
            self._journal.append([begun], sync=False)
        conversation = self._journal.conversation
        conversation.begin(self.attempt)
        self._journal.feed.publish(Started(turn, messages, number))
        window = conversation.window
        return Ask(
            self._journal.session,
            turn,
            window.before(turn),
            window.of(turn),
            self,
            summary=window.summary,
            model=conversation.chosen_model,
        )

    async def _settle(self) -> None:
        """See to it that the turn has its one closing event."""
        await self._journal.quiet()
        if self.lost or not self._is_open():
            return
        if self._task.cancelled() and self._broken_off and not self.stopped:
            return  # shutting down: it stays open
        await self._close_calls(INTERRUPTED)
        said = self._journal.feed.said
        if self._task.cancelled() and self.stopped:
            self._count(said)
            await self._keep([Assistant(content=said, finish="stopped")])
        elif isinstance(fault := _fault(self._task), TimeoutError):
            self._count(said)
            await self._keep([Assistant(content=said, finish="cut") if said else _failed(TOO_LONG)])
        elif isinstance(fault, OverBudget):
            await self._keep([_failed(str(fault))])
        else:
            self._log.error("a turn broke", exc_info=fault)
            await self._keep([_failed(BROKEN)])

    def _count(self, said: str) -> None:
        """Of a reply that was broken off: what was said of it."""
        if self._spent and self._spent.estimated:
            self._spent += Usage(output=len(said.encode("utf-8", "replace")) // _BYTES_A_TOKEN)

    def _is_open(self) -> bool:
        return any(id in self._journal.conversation.open for id in self.attempt.messages)

    async def _close_calls(self, why: str, but: Callable[[ToolCall], bool] = lambda call: False) -> None:
        unfinished = [call for call in self._journal.conversation.unfinished_calls.values() if not but(call)]
        if unfinished:
            await self._keep(
                [
                    ToolResult(name=call.name, result=why, call_id=call.call_id, ok=False)
                    for call in unfinished
                ]
            )

    async def _keep(self, batch: list[TurnEvent]) -> None:
        """Store a turn's events, however long the disk takes to come back."""
        complete = [stamped(of_turn(event, self.attempt, self._spent)) for event in batch]
        with self._untimed():
            while not await self._kept(complete):
                await self._sleep(_RETRY_SECONDS)
        self._see(complete)

    async def _kept(self, batch: list[Event]) -> bool:
        try:
            if self.lost:
                raise LeaseLost("another node ran this session's turns meanwhile")
            await self._journal.still_ours()
            await self._journal.fresh(self.attempt)
            if self._journal.told(batch):
                return True  # the answer to an earlier try was lost
            if self._journal.uncertain:
                return False
            if not self._is_open() and any(closes(event) is not None for event in batch):
                return True  # it was answered after all, by a try whose answer was lost
            await asyncio.shield(self._journal.append(batch, leased=True))
        except StorageError as error:
            self._log.warning("the turn waits for the disk", error=str(error))
            return False
        except LeaseLost:
            self.lost = True
            raise
        return True

    def _see(self, batch: list[Event]) -> None:
        for event in batch:
            if isinstance(event, Assistant | System) and closes(event) is not None:
                self._closing = event

    @contextmanager
    def _untimed(self) -> Iterator[None]:
        """What the turn waits for here is not its own time."""
        clock = asyncio.get_running_loop().time
        limit = self._limit
        self._pauses += 1
        if limit and self._pauses == 1 and (deadline := limit.when()) is not None and not limit.expired():
            self._left = deadline - clock()
            limit.reschedule(None)
        try:
            yield
        finally:
            self._pauses -= 1
            if limit and not self._pauses and not limit.expired():
                limit.reschedule(clock() + self._left)


def _fault(turn: asyncio.Task[None]) -> BaseException | None:
    """Why the turn ended; a cancellation that nobody here asked for is a tool's or a library's own."""
    return asyncio.CancelledError() if turn.cancelled() else turn.exception()


def _failed(public: str) -> System:
    return System(name="turn_failed", content=public)
