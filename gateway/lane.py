"""One session's turns, in order: store, run, tell, fail, stop.

A lane orders all writes of its transcript and is the only runner of its turns.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Literal, NamedTuple

import structlog

from channels.base import Receipt, Started
from channels.errors import Refused
from gateway.feed import Feed
from gateway.journal import Journal
from gateway.turn import Ask, Runner, TurnEvent, of_turn
from session.conversation import Attempt, Conversation
from session.errors import StorageError
from session.events import Assistant, Event, Record, System, ToolResult, User
from session.ids import SessionId
from session.store import Store

log = structlog.get_logger(__name__)

ATTEMPTS = 3
MAX_WAITING = 20
_RETRY_SECONDS = 1.0
_LAST_WORDS = 2.0  # seconds that a stopped turn has to be closed before the lane is
WALL_SECONDS = 300.0  # one attempt at a turn, tools included
INTERRUPTED = "The tool was interrupted; whether it had an effect is not known."
GAVE_UP = "Sorry, I could not answer this: I was interrupted three times while trying. Please ask again."
TOO_LONG = "Sorry, this took longer than five minutes and was ended. Please ask again, or ask for less."
TOO_MANY = f"{MAX_WAITING} messages are waiting already. Please wait for an answer."
BROKEN = "Sorry, something went wrong inside the gateway while answering. Please ask again."


class Rules(NamedTuple):
    """What a lane is told by the configuration."""

    history_turns: int = 20
    mode: Literal["collect", "each"] = "collect"
    push: bool = False  # the channel brings its replies by itself: they are open until they are delivered


class Lane:
    """One session at work. `open` first; `close` leaves what is unfinished for the next start."""

    def __init__(
        self,
        session: SessionId,
        store: Store,
        runner: Runner,
        slots: asyncio.Semaphore,
        rules: Rules,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.session = session
        self.held = 0  # how many channels hold the session; counted by the router's seats
        self.used = 0.0  # when the router last handed the lane out, monotonic seconds
        self._journal = Journal(session, store, rules.history_turns, push=rules.push)
        self._runner = runner
        self._slots = slots
        self._rules = rules
        self._sleep = sleep
        self._arriving: dict[str, tuple[int, asyncio.Future[list[Record]]]] = {}
        self._closing = False
        self._worker: asyncio.Task[None] | None = None
        self._turn: asyncio.Task[None] | None = None  # the runner's task, None between turns
        self._attempt: Attempt | None = None
        self._has_slot = False
        self._not_before = 0.0  # the loop's time up to which more of the same is expected
        self._stopped = False  # set by `stop`, until the next turn begins
        self._log = log.bind(session=session)

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the transcript's tail; raises `StorageError` or `OSError`."""
        await self._journal.open()

    @property
    def conversation(self) -> Conversation:
        """What is known of the session."""
        return self._journal.conversation

    @property
    def feed(self) -> Feed:
        """Its live updates."""
        return self._journal.feed

    def resume(self) -> None:
        """Begin what is open and not being worked on."""
        if not self._closing and (self._worker is None or self._worker.done()) and self.conversation.open:
            self._worker = asyncio.create_task(self._work(), name=f"lane {self.session}")

    @property
    def idle(self) -> bool:
        """Whether nothing is running or waiting, and nobody holds the session."""
        working = self._worker is not None and not self._worker.done()
        return not (working or self._journal.busy or self.held) and self.conversation.settled

    @property
    def working(self) -> bool:
        """Whether a turn runs, or waits for its slot."""
        return self._attempt is not None

    @property
    def waiting(self) -> int:
        """How many messages wait for the next turn."""
        begun = self._attempt.messages if self._attempt else ()
        return sum(id not in begun for id in self.conversation.open)

    @property
    def history(self) -> int:
        """How many earlier messages the model sees."""
        return self.conversation.window.size

    async def drain(self) -> None:
        """Take nothing new, begin nothing new, and wait for the turn that is being answered."""
        self._closing = True
        if self._turn is not None and not self._has_slot:
            self._turn.cancel()
        if self._worker is not None:
            await asyncio.wait({self._worker})

    async def close(self) -> None:
        """Break off what runs, without closing it: the next start goes on with it."""
        self._closing = True
        if self._turn is not None:
            self._turn.cancel()
        if self._worker is not None:
            # Only a disk that refuses the closing event holds the worker up: it must not hold up the stop.
            await asyncio.wait({self._worker}, timeout=_LAST_WORDS)
            self._worker.cancel()
            await asyncio.wait({self._worker})

    async def erase(self) -> bool:
        """Break off what runs and remove the transcript for good; False where there is none."""
        draining = self._closing
        await self.close()
        found = await self._journal.erase()
        self._closing = draining
        return found

    # -- messages --------------------------------------------------------------------------------

    async def submit(self, id: str, text: str, *, hold: float = 0.0, insistent: bool = False) -> Receipt:
        """Store a message (`channels.base.InboundMessage`); returns when it is on disk. Raises `Refused`."""
        if self._closing:
            raise Refused("shutting_down", "The gateway is restarting. Please send it again in a moment.")
        await self._journal.fresh(self._attempt)
        if receipt := await self._repeat(id, text):
            return receipt
        batch: list[Event] = [User(content=text, id=id)]
        if self.waiting + len(self._arriving) >= MAX_WAITING:
            if not insistent:
                raise Refused("queue_full", TOO_MANY)
            batch.append(System(name="turn_failed", turn=_new_turn(), answers=(id,), content=TOO_MANY))
        self._not_before = max(self._not_before, asyncio.get_running_loop().time() + hold)
        queued = self._turns_ahead()
        stored = self._journal.append(batch)
        self._arriving[id] = (hash(text), stored)
        stored.add_done_callback(lambda _: self._arrived(id))
        return Receipt(await self._cursor_of(stored), queued)

    def _arrived(self, id: str) -> None:
        del self._arriving[id]
        self.resume()

    async def _repeat(self, id: str, text: str) -> Receipt | None:
        """The receipt of a message that came before; raises `Refused` where its text was another."""
        if arriving := self._arriving.get(id):
            self._same(id, arriving[0] == hash(text))
            return Receipt(await self._cursor_of(arriving[1]), self._turns_ahead())
        if seen := self.conversation.seen.get(id):
            self._same(id, seen.text == hash(text) and not seen.command)
            return Receipt(seen.cursor, self._turns_ahead() if id in self.conversation.open else 0)
        return None

    def _same(self, id: str, same: bool) -> None:
        if not same:
            raise Refused("id_conflict", f"Message id {id} was used for another text. Use a new id.")

    def _turns_ahead(self) -> int:
        if self._rules.mode == "collect":
            return int(self.working)
        return int(self.working) + self.waiting + len(self._arriving)

    async def _cursor_of(self, stored: asyncio.Future[list[Record]]) -> str:
        try:
            return (await asyncio.shield(stored))[-1].cursor
        except StorageError as error:
            raise Refused(
                "storage_unavailable", "The gateway cannot store messages just now. Please try again soon."
            ) from error

    async def record(self, batch: list[Event]) -> str:
        """Store events that are no messages (a command's effect, a delivery); never waits for a turn.

        Returns the cursor after them; raises `Refused`.
        """
        await self._journal.fresh(self._attempt)
        return await self._cursor_of(self._journal.append(batch))

    def stop(self) -> bool:
        """Stop the running turn, also one that waits for a slot; False where there is none."""
        if self._turn is None or self._turn.done() or self._stopped:
            return False
        self._stopped = True
        self._turn.cancel()
        return True

    # -- turns -----------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._closing and (attempt := await self._next()):
            self._attempt, self._stopped = attempt, False
            self._turn = asyncio.create_task(self._run(attempt), name=f"turn {attempt.turn}")
            try:
                await asyncio.wait({self._turn})
                await self._settle(attempt, self._turn)
            finally:
                self._turn = self._attempt = None
                self._has_slot = False

    async def _next(self) -> Attempt | None:
        await self._quiet()
        if self._closing:
            return None
        if begun := self.conversation.running:
            return Attempt(begun.turn, begun.messages, begun.number + 1)
        waiting = self.conversation.waiting()
        if not waiting:
            return None
        batch = waiting if self._rules.mode == "collect" else waiting[:1]
        return Attempt(_new_turn(), tuple(str(message.id) for message in batch), 1)

    async def _quiet(self) -> None:
        """Wait while more of the same is expected."""
        clock = asyncio.get_running_loop().time
        while (pause := self._not_before - clock()) > 0:  # noqa: ASYNC110 - time itself is awaited
            await asyncio.sleep(pause)

    async def _run(self, attempt: Attempt) -> None:
        """Answer one turn. Whatever ends it early, `_settle` closes it."""
        await self._close_calls(attempt, INTERRUPTED)
        if attempt.number > ATTEMPTS:
            await self._keep(attempt, [_failed(GAVE_UP)])
            return
        async with self._slots:
            self._has_slot = True
            turn, messages = attempt.turn, attempt.messages
            begun = System(name="started", turn=turn, messages=messages, attempt=attempt.number)
            self._journal.append([begun], sync=False)
            self.conversation.begin(attempt)
            self.feed.publish(Started(turn, messages, attempt.number))
            window = self.conversation.window
            ask = Ask(self.session, turn, window.before(turn), window.of(turn))
            async with asyncio.timeout(WALL_SECONDS) as limit, aclosing(self._runner.run(ask)) as items:
                async for item in items:
                    if isinstance(item, list):
                        await self._keep(attempt, item, limit)
                    else:
                        self.feed.publish(item)

    async def _settle(self, attempt: Attempt, turn: asyncio.Task[None]) -> None:
        """See to it that the turn has its one closing event, and say that it is over."""
        await self._journal.quiet()
        if self._is_open(attempt):
            if turn.cancelled() and self._closing and not self._stopped:
                return  # shutting down: it stays open
            await self._close_calls(attempt, INTERRUPTED)
            if turn.cancelled() and self._stopped:
                await self._keep(attempt, [Assistant(content=self.feed.said, finish="stopped")])
            elif isinstance(fault := _fault(turn), TimeoutError):
                said = self.feed.said
                await self._keep(
                    attempt, [Assistant(content=said, finish="cut") if said else _failed(TOO_LONG)]
                )
            else:
                self._log.error("a turn broke", turn=attempt.turn, exc_info=fault)
                await self._keep(attempt, [_failed(BROKEN)])

    def _is_open(self, attempt: Attempt) -> bool:
        return any(id in self.conversation.open for id in attempt.messages)

    async def _close_calls(self, attempt: Attempt, why: str) -> None:
        if unfinished := list(self.conversation.unfinished_calls.values()):
            results = [
                ToolResult(name=call.name, result=why, call_id=call.call_id, ok=False) for call in unfinished
            ]
            await self._keep(attempt, list(results))

    async def _keep(
        self, attempt: Attempt, batch: list[TurnEvent], limit: asyncio.Timeout | None = None
    ) -> None:
        """Store a turn's events, however long the disk takes to come back; `limit` does not run meanwhile."""
        clock = asyncio.get_running_loop().time
        left = deadline - clock() if limit and (deadline := limit.when()) is not None else None
        if limit:
            limit.reschedule(None)
        complete = [of_turn(event, attempt) for event in batch]
        while True:
            await self._journal.fresh(self._attempt)
            try:
                await asyncio.shield(self._journal.append(complete))
            except StorageError as error:
                self._log.warning("the turn waits for the disk", turn=attempt.turn, error=str(error))
                await self._sleep(_RETRY_SECONDS)
            else:
                break
        if limit and left is not None:
            limit.reschedule(clock() + left)


def _fault(turn: asyncio.Task[None]) -> BaseException | None:
    """Why the turn ended; a cancellation that nobody here asked for is a tool's or a library's own."""
    return asyncio.CancelledError() if turn.cancelled() else turn.exception()


def _new_turn() -> str:
    return secrets.token_hex(6)


def _failed(public: str) -> System:
    return System(name="turn_failed", content=public)
