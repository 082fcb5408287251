"""Whose message is it, is it a command, and which lane does it go to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import structlog

from channels.base import Answer, Courier, Delivery, InboundMessage, Receipt, Sent, Update
from channels.errors import Refused
from channels.wire import MAX_TEXT
from gateway import commands
from gateway.feed import FeedWatch
from gateway.lane import Lane
from session import ids
from session.errors import BadCursor
from session.events import Event, Record, System, User
from session.ids import AgentId, Peer, Provider, SessionId
from session.replies import Reply
from session.store import Store

log = structlog.get_logger(__name__)

_IDLE_SECONDS = 60.0


async def _at_once() -> None:
    return


class Agent(NamedTuple):
    """What the router must know of an agent."""

    name: AgentId
    model: Callable[[], str]  # its model's name, as people see it at this moment
    lane: Callable[[SessionId], Lane]  # makes the lane of one of its sessions
    known: Callable[[], Awaitable[None]] = _at_once  # waits, briefly, while its model is being looked for


class Router:
    """The `channels.base.Inbox`: opens lanes on demand, keeps those that are at work, lets idle ones go."""

    def __init__(
        self,
        store: Store,
        agents: Mapping[str, Agent],
        about: Callable[[Lane], list[tuple[str, str]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.about = about
        self._agents = agents
        self._clock = clock
        self._lanes: dict[SessionId, Lane] = {}
        self._opening: dict[SessionId, asyncio.Task[None]] = {}
        self._couriers: dict[Provider, Courier] = {}
        self._draining = False

    # -- the inbox -------------------------------------------------------------------------------

    async def session(self, peer: Peer, agent: AgentId | None = None) -> Seat:
        """Open the peer's session; raises `Refused`."""
        await self._agent(agent).known()
        return await self._seat(peer, agent)

    async def _seat(self, peer: Peer, agent: AgentId | None) -> Seat:
        chosen = self._agent(agent)
        return Seat(self, await self.lane(ids.session_id(chosen.name, peer)), chosen)

    async def submit(self, message: InboundMessage) -> Receipt | Answer:
        """Store a message, or carry out the command that it is; raises `Refused`."""
        seat = await self._seat(message.peer, message.agent)
        try:
            return await seat.submit(message.id, message.text, hold=message.hold, insistent=message.insistent)
        finally:
            seat.close()

    async def record(self, session: SessionId, events: list[Event]) -> None:
        """Store what a channel must remember; never waits for a running turn. Raises `Refused`."""
        await (await self.lane(session)).record(events)

    async def delete(self, peer: Peer, agent: AgentId | None = None) -> bool:
        """Remove the peer's session for good; False where there is none."""
        return await self.delete_session(ids.session_id(self._agent(agent).name, peer))

    async def delete_session(self, session: SessionId) -> bool:
        """Remove a session for good, whatever it is doing; False where there is none."""
        return await (await self.lane(session)).erase()

    def _agent(self, asked: str | None) -> Agent:
        try:
            return self._agents[asked or "main"]
        except KeyError:
            raise Refused("not_found", f"There is no agent {asked!r}.") from None

    def employ(self, courier: Courier) -> None:
        """Let a push channel attend its sessions as they come to memory; before `resume`."""
        self._couriers[courier.provider] = courier

    # -- lanes -----------------------------------------------------------------------------------

    async def lane(self, session: SessionId) -> Lane:
        """The session's lane, opened where it is not; raises `Refused`."""
        # Looked up again after the wait: `resume` may have let go of the lane, and there must not be two.
        while (lane := self._lanes.get(session)) is None:
            task = self._opening.get(session)
            if task is None:
                task = self._opening[session] = asyncio.create_task(self._open(session))
                task.add_done_callback(lambda task: self._opened(session, task))
            with _readable(session):
                await asyncio.shield(task)
        lane.used = self._clock()
        return lane

    def _opened(self, session: SessionId, task: asyncio.Task[None]) -> None:
        del self._opening[session]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: that is no "exception never retrieved"

    async def _open(self, session: SessionId) -> None:
        agent, _ = ids.parse(session)
        lane = self._agent(agent).lane(session)
        await lane.open()
        lane.used = self._clock()
        self._lanes[session] = lane
        if courier := self._courier(session):
            courier.attend(Seat(self, lane, self._agent(agent), held=False))
        if self._draining:
            await lane.drain()
        else:
            lane.resume()

    def _courier(self, session: SessionId) -> Courier | None:
        _, peer = ids.parse(session)
        return self._couriers.get(peer.provider)

    async def _let_go(self, lane: Lane) -> None:
        del self._lanes[lane.session]
        if courier := self._courier(lane.session):
            courier.dismiss(lane.session)
        await self.store.settle(lane.session)

    @property
    def lanes(self) -> list[Lane]:
        """Those in memory now."""
        return list(self._lanes.values())

    async def sweep(self) -> None:
        """Let go of the lanes that nobody has used for a minute."""
        now = self._clock()
        for lane in self.lanes:
            if lane.idle and now - lane.used >= _IDLE_SECONDS:
                await self._let_go(lane)

    # -- life ------------------------------------------------------------------------------------

    async def resume(self) -> int:
        """Go on with whatever a stop or a crash left open; returns how many sessions had something."""
        resumed = 0
        for session in self.store.maybe_open():
            try:
                lane = await self.lane(session)
            except Refused:
                continue  # the session is tried again when somebody speaks in it, or at the next start
            if not lane.conversation.settled:
                resumed += 1
            elif lane.idle:
                await self._let_go(lane)
        return resumed

    async def drain(self, seconds: float) -> None:
        """Take in nothing more, finish what is being answered for so long, leave the rest open."""
        self._draining = True
        if self._lanes:
            draining = [asyncio.create_task(lane.drain()) for lane in self.lanes]
            _, late = await asyncio.wait(draining, timeout=seconds)
            await asyncio.gather(*(lane.close() for lane in self.lanes))
            if late:
                await asyncio.wait(late)
        for lane in self.lanes:
            if lane.idle:
                await self.store.settle(lane.session)


class Seat:
    """A `channels.base.Session`, and what commands may use of it (`commands.Scene`)."""

    def __init__(self, router: Router, lane: Lane, agent: Agent, *, held: bool = True) -> None:
        self._router = router
        self._lane = lane
        self._agent = agent
        self._held = held
        lane.held += held

    @property
    def id(self) -> SessionId:
        return self._lane.session

    @property
    def agent(self) -> AgentId:
        return self._agent.name

    @property
    def model(self) -> str:
        return self._agent.model()

    @property
    def turns(self) -> int:
        return self._lane.conversation.window.size

    def watch(self, update: Callable[[Update], None]) -> FeedWatch:
        return self._lane.feed.watch(update, self._lane.conversation.cursor)

    def undelivered(self) -> list[Delivery]:
        replies = self._lane.conversation.replies
        return [_delivery(reply) for reply in replies.undelivered()] if replies else []

    def sent(self, turn: str) -> list[Sent]:
        replies = self._lane.conversation.replies
        return _sent(replies.sent(turn)) if replies else []

    @property
    def address(self) -> str | None:
        replies = self._lane.conversation.replies
        return replies.address if replies else None

    async def record(self, events: list[Event]) -> None:
        await self._lane.record(events)

    async def submit(
        self, id: str, text: str, *, hold: float = 0.0, insistent: bool = False
    ) -> Receipt | Answer:
        self._small(text)
        match commands.parse(id, text):
            case commands.Call() as call:
                return await self._command(call)
            case str() as unknown:
                return Answer(unknown)
        return await self._lane.submit(id, commands.plain(text), hold=hold, insistent=insistent)

    def _small(self, text: str) -> None:
        if not text.strip():
            raise Refused("bad_frame", "The message is empty.")
        if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT:
            raise Refused("text_too_large", f"A message may have at most {MAX_TEXT // 1024} KiB of text.")

    async def _command(self, call: commands.Call) -> Answer:
        if seen := self._lane.conversation.seen.get(call.id):
            if not seen.command:
                raise Refused("id_conflict", f"Message id {call.id} was used for another text. Use a new id.")
            return Answer(f"/{call.name} was carried out already.")
        return Answer(await commands.COMMANDS[call.name].run(self, call))

    def status(self) -> list[tuple[str, str]]:
        return self._router.about(self._lane)

    async def note(self, event: System) -> None:
        await self._lane.record([event])

    async def retry(self, id: str, of: str) -> Receipt:
        seen = self._lane.conversation.seen.get(of)
        if seen and not seen.command:
            with _readable(self.id):
                events = await self._router.store.recent(self.id, lambda record: _is_message(record, of))
            if events and isinstance(events[0].event, User):
                return await self._lane.submit(id, events[0].event.content)
        raise Refused("not_found", f"There is no message {of} in the recent part of this conversation.")

    def stop(self) -> bool:
        return self._lane.stop()

    async def after(self, cursor: str | None, limit: int, until: str | None) -> list[Record]:
        if cursor is not None and self._lane.conversation.cursor is None:
            raise BadCursor("nothing was said in this session yet")
        with _readable(self.id):
            return await self._router.store.after(self.id, cursor, limit, until)

    async def before(self, cursor: str | None, limit: int) -> list[Record]:
        with _readable(self.id):
            return await self._router.store.before(self.id, cursor, limit)

    def close(self) -> None:
        self._lane.held -= self._held
        self._held = False


@contextmanager
def _readable(session: SessionId) -> Iterator[None]:
    """A transcript that the disk does not give is no defect of ours: people are told to try again."""
    try:
        yield
    except OSError as error:
        log.warning("a transcript cannot be read", session=session, error=str(error))
        raise Refused(
            "storage_unavailable", "The gateway cannot read its transcripts just now. Please try again soon."
        ) from error


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
