"""One channel's hold on one session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from channels.base import Answer, Approval, Delivery, Receipt, Sent, Update
from channels.errors import Refused
from channels.wire import MAX_TEXT
from gateway import commands, reversal
from gateway.feed import FeedWatch
from gateway.journal import readable
from gateway.lane import Lane
from gateway.notices import Approve, Command, Retry
from gateway.rules import Mode
from session.errors import BadCursor
from session.events import Event, Record, System, User
from session.ids import AgentId, SessionId
from session.replies import Reply

if TYPE_CHECKING:
    from gateway.router import Agent, Router


class Seat:
    """A `channels.base.Session`, and what commands may use of it (`commands.Scene`)."""

    __slots__ = ("_agent", "_brings", "_held", "_router", "lane", "operator")

    def __init__(
        self, router: Router, lane: Lane, agent: Agent, *, held: bool = True, operator: bool = False
    ) -> None:
        self._router = router
        self.lane = lane
        self._agent = agent
        self._held = held
        self._brings = not held  # a courier's, or another node's: what it stores belongs to the turns
        self.operator = operator
        lane.held += held

    @property
    def id(self) -> SessionId:
        return self.lane.session

    @property
    def agent(self) -> AgentId:
        return self._agent.name

    @property
    def model(self) -> str:
        return self._router.models(self.agent).label(self.lane.conversation.chosen_model)

    @property
    def turns(self) -> int:
        return self.lane.conversation.window.size

    def watch(self, update: Callable[[Update], None]) -> FeedWatch:
        return self.lane.feed.watch(update, self.lane.conversation.cursor)

    def undelivered(self) -> list[Delivery]:
        replies = self.lane.conversation.replies
        return [_delivery(reply) for reply in replies.undelivered()] if replies else []

    def sent(self, turn: str) -> list[Sent]:
        replies = self.lane.conversation.replies
        return _sent(replies.sent(turn)) if replies else []

    @property
    def address(self) -> str | None:
        replies = self.lane.conversation.replies
        return replies.address if replies else None

    async def record(self, events: list[Event]) -> None:
        await self.lane.record(events, leased=self._brings)

    async def submit(
        self, id: str, text: str, *, hold: float = 0.0, insistent: bool = False
    ) -> Receipt | Answer:
        self._small(text)
        match commands.parse(id, text):
            case commands.Call() as call:
                return await self._command(call)
            case str() as unknown:
                return Answer(unknown)
        if hold and self._router.nodes and not self.lane.owner:
            self._router.nodes.hold(self.id, hold)
        return await self.lane.submit(id, commands.plain(text), hold=hold, insistent=insistent)

    def _small(self, text: str) -> None:
        if not text.strip():
            raise Refused("bad_frame", "The message is empty.")
        if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT:
            raise Refused("text_too_large", f"A message may have at most {MAX_TEXT // 1024} KiB of text.")

    async def _command(self, call: commands.Call) -> Receipt | Answer:
        if nodes := self._router.nodes:
            asked = Command(call.name, call.argument, call.id, self.operator)
            if isinstance(done := await nodes.errands.send(self.lane, asked), Receipt | Answer):
                return done
        return await self.carry_out(call)

    async def carry_out(self, call: commands.Call) -> Receipt | Answer:
        """Do what a command says, where no other node runs the session's turns; raises `Refused`."""
        seen = self.lane.conversation.seen.get(call.id)
        if seen and not (seen.again and call.name == "retry"):
            if not seen.command:
                raise Refused("id_conflict", f"Message id {call.id} was used for another text. Use a new id.")
            return Answer(f"/{call.name} was carried out already.")
        command = commands.COMMANDS[call.name]
        if command.operators and not self.operator:
            return Answer(f"/{call.name} is for the gateway's operators, in `lunar chat` on its own machine.")
        first = self.lane.commands.get(call)
        done = await asyncio.shield(first or self._begun(call, command.run(self, call)))
        return done if isinstance(done, Receipt) else Answer(done)

    def _begun(
        self, call: commands.Call, work: Coroutine[Any, Any, Receipt | str]
    ) -> asyncio.Task[Receipt | str]:
        """It goes on when whoever said it is gone: said again, it must not be done twice."""
        task = self.lane.commands[call] = asyncio.create_task(work, name=f"/{call.name}")

        def over(task: asyncio.Task[Receipt | str]) -> None:
            del self.lane.commands[call]
            if not task.cancelled():
                task.exception()  # told to whoever waits, if there still is somebody

        task.add_done_callback(over)
        return task

    @property
    def chosen(self) -> str | None:
        return self.lane.conversation.chosen_model

    @property
    def models(self) -> dict[str, str]:
        return self._router.models(self.agent).choices(every=self.operator)

    async def status(self) -> list[tuple[str, str]]:
        return await self._router.about(self.lane)

    async def admit(self, code: str) -> str:
        _, said = await self._router.approve(code)
        return said

    @property
    def asked(self) -> list[Approval]:
        return self.lane.asked

    async def decide(self, call_id: str, allow: bool, id: str) -> None:
        await self.lane.approve(call_id, allow, id)

    @property
    def queue(self) -> tuple[Mode, Mode]:
        return self.lane.mode, self.lane.default_mode

    async def compact(self) -> str:
        return await self.lane.compact()

    async def undo(self, id: str) -> str:
        return await reversal.undo(self.lane, id)

    async def again(self, id: str) -> Receipt | str:
        return await reversal.again(self.lane, id)

    async def note(self, event: System) -> None:
        await self.lane.record([event])

    async def retry(self, id: str, of: str) -> Receipt:
        nodes = self._router.nodes
        if nodes and isinstance(done := await nodes.errands.send(self.lane, Retry(id, of)), Receipt):
            return done
        return await self.ask_again(id, of)

    async def ask_again(self, id: str, of: str) -> Receipt:
        """`retry`, where no other node runs the session's turns."""
        seen = self.lane.conversation.seen.get(of)
        if seen and not seen.command:
            with readable(self.id):
                events = await self._router.store.recent(self.id, lambda record: _is_message(record, of))
            if events and isinstance(events[0].event, User):
                return await reversal.anew(self.lane, id, events[0].event)
        raise Refused("not_found", f"There is no message {of} in the recent part of this conversation.")

    def stop(self) -> bool:
        if self._router.nodes and not self.lane.owner:
            self._router.nodes.errands.stop(self.lane)
            return self.lane.working
        return self.lane.stop()

    async def approve(self, call_id: str, allow: bool) -> None:
        nodes = self._router.nodes
        if nodes is None or await nodes.errands.send(self.lane, Approve(call_id, allow)) is None:
            await self.lane.approve(call_id, allow)

    async def after(self, cursor: str | None, limit: int, until: str | None) -> list[Record]:
        if cursor is not None and self.lane.conversation.cursor is None and not self._router.nodes:
            raise BadCursor("nothing was said in this session yet")
        with readable(self.id):
            store = self._router.store
            records = await store.after(self.id, cursor, limit, until)
            if cursor is not None and not records and self._router.nodes and await store.end(self.id) is None:
                raise BadCursor("the session was deleted")
            return records

    async def before(self, cursor: str | None, limit: int) -> list[Record]:
        with readable(self.id):
            return await self._router.store.before(self.id, cursor, limit)

    def close(self) -> None:
        if self._held:
            self._held = False
            self.lane.held -= 1
            self._router.left(self.lane)


def _delivery(reply: Reply) -> Delivery:
    return Delivery(
        reply.turn,
        reply.answers,
        tuple(reply.texts),
        reply.finish or "",
        tuple(_sent(reply.sent)),
        reply.failures,
    )


def _sent(events: list[System]) -> list[Sent]:
    return [Sent(event.part or 0, event.message_id or 0, event.chat or "") for event in events]


def _is_message(record: Record, id: str) -> bool:
    return isinstance(record.event, User) and record.event.id == id
