"""One session's turns, in order: store, run, tell, fail, stop.

A lane orders this process's writes of its transcript. Only the one that is the owner runs its turns; where
several nodes share the store, the others' lanes follow what it stores.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from channels.base import Approval, Receipt
from channels.errors import Refused
from gateway.arrivals import Arrivals
from gateway.compaction import Compaction
from gateway.feed import Feed
from gateway.journal import Journal
from gateway.ledger import Account, Ledger
from gateway.questions import NOT_ASKED
from gateway.rules import MODES, Again, Mode, Quiet, Rules
from gateway.turn import ContextUse, Runner
from gateway.turn_run import Shop, TurnRun
from session.conversation import Attempt, Conversation
from session.errors import Repeated
from session.events import Event, Record, System, User
from session.ids import SessionId
from session.protocols import SharedStore, TranscriptStore

MAX_WAITING = 20
_LAST_WORDS = 2.0  # seconds that a stopped turn has to be closed before the lane is
TOO_MANY = f"{MAX_WAITING} messages are waiting already. Please wait for an answer."


class Lane:
    """One session at work. `open` first; `close` leaves what is unfinished for the next start.

    Nothing that it consists of leads back to it: in a cycle its history would wait for the collector.
    """

    def __init__(
        self,
        session: SessionId,
        store: TranscriptStore,
        runner: Runner,
        slots: asyncio.Semaphore,
        rules: Rules,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        account: Account | None = None,
        shared: SharedStore | None = None,
    ) -> None:
        """`shared`: the store, where other nodes may run the session's turns, too."""
        self.session = session
        account = account or Ledger(store).account(session)
        self.held = 0  # how many channels hold the session; counted by the router's seats
        self.hands_over = False  # set by the router when it drains: another node answers what still comes
        self.used = 0.0  # when the router last handed the lane out, monotonic seconds
        self._shared = shared
        self.journal = Journal(
            session, store, rules.history_turns, push=rules.push, count=account.count, shared=bool(shared)
        )
        self._shop = Shop(self.journal, runner, slots, account, sleep)
        self._compaction = Compaction(self.journal)
        self.context: ContextUse | None = None  # of the last turn, once there was one
        self._rules = rules
        self._arrivals = Arrivals(self.journal)
        self.quiet = Quiet()
        self._draining = False
        self._eraser: asyncio.Task[bool] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._turn: TurnRun | None = None
        self.commands: dict[tuple[str, str, str], asyncio.Task[Receipt | str]] = {}  # being carried out

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the transcript's tail; raises `StorageError` or `OSError`."""
        self.journal.on_foreign, self.journal.on_lost = self._came, self.lose
        await self.journal.open()

    @property
    def conversation(self) -> Conversation:
        """What is known of the session."""
        return self.journal.conversation

    @property
    def feed(self) -> Feed:
        """Its live updates."""
        return self.journal.feed

    @property
    def owner(self) -> bool:
        """Whether this process runs the session's turns, as far as it knows."""
        return self._shared is None or self._shared.holds(self.session)

    async def fresh(self) -> None:
        """Know what is stored, where that was in doubt."""
        mine = self._turn is not None and self.owner and not self._turn.lost
        await self.journal.fresh(self._turn.attempt if self._turn and mine else None)

    def lose(self) -> None:
        """Another node runs the turns from now on: leave what runs to it."""
        self._compaction.stop()
        self.journal.doubt()
        if self._turn is not None:
            self._turn.lose()

    def adopt(self, fresh: Lane) -> None:
        """Work as another lane of the session would that was never opened, from the next turn on."""
        self._rules = fresh._rules
        self._shop = fresh._shop._replace(journal=self.journal)
        self.journal.remember(fresh._rules.history_turns)

    def resume(self) -> None:
        """Begin what is open and not being worked on."""
        if self._closing or not self.owner:
            return
        if (self._worker is None or self._worker.done()) and self.conversation.open:
            self._worker = asyncio.create_task(self._work(), name=f"lane {self.session}")

    @property
    def idle(self) -> bool:
        """Whether nothing is running or waiting, and nobody holds the session."""
        working = self._worker is not None and not self._worker.done()
        busy = working or self._compaction.busy or self.journal.busy or self.commands or self._erasing
        return not (busy or self.held) and (self.conversation.settled or not self.owner)

    @property
    def working(self) -> bool:
        """Whether a turn runs, or waits for its slot."""
        return self._turn is not None or (not self.owner and self.conversation.running is not None)

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
        attempt = self._turn.attempt if self._turn else None if self.owner else self.conversation.running
        begun = attempt.messages if attempt else ()
        return sum(id not in begun for id in self.conversation.open)

    @property
    def _erasing(self) -> bool:
        return self._eraser is not None and not self._eraser.done()

    @property
    def _closing(self) -> bool:
        return self._draining or self._erasing

    async def drain(self) -> None:
        """Take nothing new, begin nothing new, and wait for the turn that is being answered."""
        self._draining = True
        self._compaction.stop()
        if self._turn is not None and self._turn.only_waits:
            self._turn.break_off()
        if self._worker is not None:
            await asyncio.wait({self._worker})

    async def close(self) -> None:
        """Break off what runs, without closing it: the next start goes on with it."""
        self._draining = True
        await self._break_off()

    async def _break_off(self) -> None:
        if self._turn is not None:
            self._turn.break_off()
        if self._worker is not None:
            # Only a disk that refuses the closing event holds the worker up: it must not hold up the stop.
            await asyncio.wait({self._worker}, timeout=_LAST_WORDS)
            self._worker.cancel()
            await asyncio.wait({self._worker})
        await self._compaction.end()

    async def erase(self) -> bool:
        """Break off what runs and remove the transcript for good (or go on with it, and raise `OSError`)."""
        if not self._eraser or not self._erasing:
            self._eraser = asyncio.create_task(self._erase(), name=f"deletion {self.session}")
            self._eraser.add_done_callback(lambda _: self.resume())
        return await asyncio.shield(self._eraser)

    async def _erase(self) -> bool:
        await self._break_off()
        return await self.journal.erase()

    # -- messages --------------------------------------------------------------------------------

    async def submit(
        self, id: str, text: str, *, hold: float = 0.0, insistent: bool = False, again: Again | None = None
    ) -> Receipt:
        """Store a message (`channels.base.InboundMessage`); returns when it is on disk. Raises `Refused`."""
        if self._closing and not self.hands_over:
            raise Refused("shutting_down", "The gateway is restarting. Please send it again in a moment.")
        await self.fresh()
        if receipt := await self.repeat(id, text):
            return receipt
        full = self.waiting + len(self._arrivals) >= MAX_WAITING
        if full and not insistent:
            raise Refused("queue_full", TOO_MANY)
        batch: list[Event] = [*self.conversation.lasting.carry(len(self._arrivals) + 1)]
        if again and again.undo:
            self._compaction.stop()  # it would tell of what is not to be seen any more
            batch.append(System(name="undo", turn=again.undo, id=id))
        batch.append(User(content=text, id=id, of=again.of if again else None))
        if full:
            batch.append(System(name="turn_failed", turn=_new_turn(), answers=(id,), content=TOO_MANY))
        self.quiet.hold(hold)
        queued = self._turns_ahead()
        stored = self.journal.append(batch)
        self._arrivals.add(id, text, stored)
        stored.add_done_callback(lambda _: self._arrived(id))  # when the conversation knows of it
        return Receipt(await self._arrivals.stored(id, None if again else text, stored), queued)

    def _arrived(self, id: str) -> None:
        self._arrivals.drop(id)
        self._interrupt(id)
        self.resume()

    def _interrupt(self, id: str) -> None:
        waits = id in self.conversation.open  # it may be refused, by the disk or for the many that wait
        if self.mode == "interrupt" and waits and self._turn and id not in self._turn.attempt.messages:
            self._turn.stop()

    def _came(self, records: list[Record]) -> None:
        """Another node has stored this."""
        for record in records:
            match record.event:
                case User(id=str(id)):
                    self._interrupt(id)
                case System(name="reset" | "undo"):
                    self._forget()
        self.resume()

    async def repeat(self, id: str, text: str | None = None) -> Receipt | None:
        """The receipt of a message that came before; raises `Refused` where its text is given and another."""
        if (cursor := await self._arrivals.repeat(id, text)) is None:
            return None
        return Receipt(cursor, self._turns_ahead() if id in self.conversation.open else 0)

    def _turns_ahead(self) -> int:
        if self.mode == "interrupt":
            return 0
        if self.mode != "each":
            return int(self.working)
        return int(self.working) + self.waiting + len(self._arrivals)

    async def record(self, batch: list[Event], *, leased: bool = False) -> str:
        """Store events that are no messages (a command's effect, a delivery); never waits for a turn.

        `leased`: only if this node runs the session's turns. Returns the cursor after them; raises `Refused`.
        """
        if any(isinstance(event, System) and event.name in ("reset", "undo") for event in batch):
            self._forget()
        await self.fresh()
        try:
            return await self._arrivals.cursor(self.journal.append(batch, leased=leased))
        except Repeated as before:
            return before.cursor  # the answer to an earlier try was lost

    def _forget(self) -> None:
        """What a summary would tell of, and what the last request took, is of something else now."""
        self._compaction.stop()
        self.context = None

    def stop(self) -> bool:
        """Stop the running turn, also one that waits for a slot, and a summary; False where there is none."""
        summary = self._compaction.stop()
        return (self._turn is not None and self._turn.stop()) or summary

    async def compact(self) -> str:
        """The person wants a summary now; what to answer. Raises `Refused`."""
        return await self._compaction.ask(self._shop, self.record)

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
        while not self._closing and self.owner and (attempt := await self._next()):
            self._turn = TurnRun(attempt, self._shop, self._steered)
            try:
                await self._turn.over()
            finally:
                self.context = self._turn.context or self.context
                self._turn = None
            if self._rules.summaries and not self._closing and self.owner:
                self._compaction.consider(self._shop, self.record, self.context and self.context.room)

    async def _next(self) -> Attempt | None:
        await self.quiet.wait()
        await self.journal.known(lambda: self.owner and not self._closing)
        if self._closing or not self.owner:
            return None
        if begun := self.conversation.running:
            return Attempt(begun.turn, begun.messages, begun.number + 1)
        waiting = self.conversation.waiting()
        if not waiting:
            return None
        batch = waiting[:1] if self.mode == "each" else waiting
        return Attempt(_new_turn(), tuple(str(message.id) for message in batch), 1)

    def _steered(self) -> list[User]:
        """What the running turn takes in on its way; nothing while more of the same is expected."""
        return self.conversation.waiting() if self.mode == "steer" and self.quiet.over else []


def _new_turn() -> str:
    return secrets.token_hex(6)
