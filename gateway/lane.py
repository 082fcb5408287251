"""One session's turns, in order: store, run, tell, fail, stop.

A lane orders all writes of its transcript and is the only runner of its turns.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, get_args

from channels.base import Approval, Receipt
from channels.errors import Refused
from gateway.compaction import Compaction
from gateway.feed import Feed
from gateway.journal import Journal
from gateway.ledger import Account, Ledger
from gateway.questions import NOT_ASKED
from gateway.turn import ContextUse, Runner
from gateway.turn_run import Shop, TurnRun
from session.conversation import Attempt, Conversation
from session.errors import StorageError
from session.events import Event, Record, System, User
from session.ids import SessionId
from session.store import Store
from session.window import Exchange

MAX_WAITING = 20
_LAST_WORDS = 2.0  # seconds that a stopped turn has to be closed before the lane is
TOO_MANY = f"{MAX_WAITING} messages are waiting already. Please wait for an answer."

Mode = Literal["collect", "each", "steer", "interrupt"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Rules(NamedTuple):
    """What a lane is told by the configuration."""

    history_turns: int = 20
    mode: Mode = "collect"
    summaries: bool = True  # of what the model no longer sees, without anybody's asking
    push: bool = False  # the channel brings its replies by itself: they are open until they are delivered


class Again(NamedTuple):
    """What a message asks once more: those messages, in place of the exchange of the turn `undo`."""

    of: tuple[str, ...]
    undo: str | None


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
        account: Account | None = None,
    ) -> None:
        self.session = session
        account = account or Ledger(store).account(session)
        self.held = 0  # how many channels hold the session; counted by the router's seats
        self.used = 0.0  # when the router last handed the lane out, monotonic seconds
        self._journal = Journal(session, store, rules.history_turns, push=rules.push, count=account.count)
        self._shop = Shop(self._journal, runner, slots, self._steered, account, sleep)
        self._compaction = Compaction(self._journal, self.record)
        self.context: ContextUse | None = None  # of the last turn, once there was one
        self._rules = rules
        self._arriving: dict[str, tuple[int, asyncio.Future[list[Record]]]] = {}
        self._closing = False
        self._worker: asyncio.Task[None] | None = None
        self._turn: TurnRun | None = None
        self._not_before = 0.0  # the loop's time up to which more of the same is expected

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

    def adopt(self, fresh: Lane) -> None:
        """Work as another lane of the session would that was never opened, from the next turn on."""
        self._rules = fresh._rules
        self._shop = fresh._shop._replace(journal=self._journal, steered=self._steered)
        self._journal.remember(fresh._rules.history_turns)

    def resume(self) -> None:
        """Begin what is open and not being worked on."""
        if not self._closing and (self._worker is None or self._worker.done()) and self.conversation.open:
            self._worker = asyncio.create_task(self._work(), name=f"lane {self.session}")

    @property
    def idle(self) -> bool:
        """Whether nothing is running or waiting, and nobody holds the session."""
        working = self._worker is not None and not self._worker.done()
        busy = working or self._compaction.busy or self._journal.busy
        return not (busy or self.held) and self.conversation.settled

    @property
    def working(self) -> bool:
        """Whether a turn runs, or waits for its slot."""
        return self._turn is not None

    @property
    def has_slot(self) -> bool:
        """Whether a turn runs."""
        return self._turn is not None and self._turn.has_slot

    @property
    def mode(self) -> Mode:
        """What happens to a message that arrives while a turn runs: the session's own choice, or the rule."""
        chosen = self.conversation.settings.get("queue")
        return next((mode for mode in MODES if mode == chosen), self._rules.mode)

    @property
    def default_mode(self) -> Mode:
        """The rule, where the session has made no choice."""
        return self._rules.mode

    @property
    def waiting(self) -> int:
        """How many messages wait for the next turn."""
        begun = self._turn.attempt.messages if self._turn else ()
        return sum(id not in begun for id in self.conversation.open)

    @property
    def history(self) -> int:
        """How many earlier messages the model sees."""
        return self.conversation.window.size

    @property
    def exchanges(self) -> list[Exchange]:
        """What was said in them."""
        return self.conversation.window.before("")

    @property
    def chosen_model(self) -> str | None:
        """The configured model that the person chose for this session."""
        chosen = self.conversation.settings.get("model")
        return chosen if isinstance(chosen, str) else None

    async def drain(self) -> None:
        """Take nothing new, begin nothing new, and wait for the turn that is being answered."""
        self._closing = True
        self._compaction.stop()
        if self._turn is not None and self._turn.only_waits:
            self._turn.break_off()
        if self._worker is not None:
            await asyncio.wait({self._worker})

    async def close(self) -> None:
        """Break off what runs, without closing it: the next start goes on with it."""
        self._closing = True
        if self._turn is not None:
            self._turn.break_off()
        if self._worker is not None:
            # Only a disk that refuses the closing event holds the worker up: it must not hold up the stop.
            await asyncio.wait({self._worker}, timeout=_LAST_WORDS)
            self._worker.cancel()
            await asyncio.wait({self._worker})
        await self._compaction.end()

    async def erase(self) -> bool:
        """Break off what runs and remove the transcript for good; False where there is none."""
        draining = self._closing
        await self.close()
        found = await self._journal.erase()
        self._closing = draining
        return found

    # -- messages --------------------------------------------------------------------------------

    async def submit(
        self, id: str, text: str, *, hold: float = 0.0, insistent: bool = False, again: Again | None = None
    ) -> Receipt:
        """Store a message (`channels.base.InboundMessage`); returns when it is on disk. Raises `Refused`."""
        if self._closing:
            raise Refused("shutting_down", "The gateway is restarting. Please send it again in a moment.")
        await self._journal.fresh(self._turn.attempt if self._turn else None)
        if receipt := await self.repeat(id, text):
            return receipt
        full = self.waiting + len(self._arriving) >= MAX_WAITING
        if full and not insistent:
            raise Refused("queue_full", TOO_MANY)
        batch: list[Event] = [*self.conversation.lasting.carry(len(self._arriving) + 1)]
        if again and again.undo:
            self._compaction.stop()  # it would tell of what is not to be seen any more
            batch.append(System(name="undo", turn=again.undo, id=id))
        batch.append(User(content=text, id=id, of=again.of if again else None))
        if full:
            batch.append(System(name="turn_failed", turn=_new_turn(), answers=(id,), content=TOO_MANY))
        self._not_before = max(self._not_before, asyncio.get_running_loop().time() + hold)
        queued = self._turns_ahead()
        stored = self._journal.append(batch)
        self._arriving[id] = (hash(text), stored)
        stored.add_done_callback(lambda _: self._arrived(id))  # when the conversation knows of it
        return Receipt(await self._cursor_of(stored), queued)

    def _arrived(self, id: str) -> None:
        del self._arriving[id]
        waits = id in self.conversation.open  # it may be refused, by the disk or for the many that wait
        if self.mode == "interrupt" and waits and self._turn and id not in self._turn.attempt.messages:
            self._turn.stop()
        self.resume()

    async def repeat(self, id: str, text: str | None = None) -> Receipt | None:
        """The receipt of a message that came before; raises `Refused` where its text is given and another."""
        if arriving := self._arriving.get(id):
            self._same(id, text is None or arriving[0] == hash(text))
            return Receipt(await self._cursor_of(arriving[1]), self._turns_ahead())
        if seen := self.conversation.seen.get(id):
            self._same(id, not seen.command and (text is None or seen.text == hash(text)))
            return Receipt(seen.cursor, self._turns_ahead() if id in self.conversation.open else 0)
        return None

    def _same(self, id: str, same: bool) -> None:
        if not same:
            raise Refused("id_conflict", f"Message id {id} was used for another text. Use a new id.")

    def _turns_ahead(self) -> int:
        if self.mode == "interrupt":
            return 0
        if self.mode != "each":
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
        if any(isinstance(event, System) and event.name in ("reset", "undo") for event in batch):
            self._compaction.stop()
            self.context = None
        await self._journal.fresh(self._turn.attempt if self._turn else None)
        return await self._cursor_of(self._journal.append(batch))

    def stop(self) -> bool:
        """Stop the running turn, also one that waits for a slot, and a summary; False where there is none."""
        summary = self._compaction.stop()
        return (self._turn is not None and self._turn.stop()) or summary

    async def compact(self) -> str:
        """The person wants a summary now; what to answer. Raises `Refused`."""
        return await self._compaction.ask(self._shop)

    async def approve(self, call_id: str, allow: bool, id: str | None = None) -> None:
        """The person's word on a tool call, as message `id`; raises `Refused` where none waits for it."""
        if self._turn is None:
            raise Refused("not_found", NOT_ASKED)
        await self._turn.approve(call_id, allow, id)

    @property
    def asked(self) -> list[Approval]:
        """What waits for the person's word, oldest first."""
        return self._turn.asked if self._turn else []

    # -- turns -----------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._closing and (attempt := await self._next()):
            self._turn = TurnRun(attempt, self._shop)
            try:
                await self._turn.over()
            finally:
                self.context = self._turn.context or self.context
                self._turn = None
            if self._rules.summaries and not self._closing:
                self._compaction.consider(self._shop, self.context and self.context.room)

    async def _next(self) -> Attempt | None:
        await self._quiet()
        if self._closing:
            return None
        if begun := self.conversation.running:
            return Attempt(begun.turn, begun.messages, begun.number + 1)
        waiting = self.conversation.waiting()
        if not waiting:
            return None
        batch = waiting[:1] if self.mode == "each" else waiting
        return Attempt(_new_turn(), tuple(str(message.id) for message in batch), 1)

    async def _quiet(self) -> None:
        """Wait while more of the same is expected."""
        clock = asyncio.get_running_loop().time
        while (pause := self._not_before - clock()) > 0:  # noqa: ASYNC110 - time itself is awaited
            await asyncio.sleep(pause)

    def _steered(self) -> list[User]:
        """What the running turn takes in on its way; nothing while more of the same is expected."""
        whole = self._not_before <= asyncio.get_running_loop().time()
        return self.conversation.waiting() if self.mode == "steer" and whole else []


def _new_turn() -> str:
    return secrets.token_hex(6)
