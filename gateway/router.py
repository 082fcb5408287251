"""Whose message is it, is it a command, and which lane does it go to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog

from channels.base import Answer, InboundMessage, Receipt, Update
from channels.errors import Refused
from channels.wire import MAX_TEXT
from gateway import commands
from gateway.feed import FeedWatch
from gateway.lane import Lane
from session import ids
from session.errors import BadCursor, StorageError
from session.events import Event, Record, System, User
from session.ids import AgentId, Peer, SessionId
from session.store import Store

log = structlog.get_logger(__name__)

_IDLE_SECONDS = 60.0


class Agent(NamedTuple):
    """What the router must know of an agent."""

    name: AgentId
    model: Callable[[], str]  # its model's name, as people see it at this moment
    lane: Callable[[SessionId], Lane]  # makes the lane of one of its sessions


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
        self._opening: dict[SessionId, asyncio.Task[Lane]] = {}
        self._draining = False

    # -- the inbox -------------------------------------------------------------------------------

    async def session(self, peer: Peer, agent: AgentId | None = None) -> Seat:
        """Open the peer's session; raises `Refused`."""
        chosen = self._agent(agent)
        return Seat(self, await self.lane(ids.session_id(chosen.name, peer)), chosen)

    async def submit(self, message: InboundMessage) -> Receipt | Answer:
        """Store a message, or carry out the command that it is; raises `Refused`."""
        seat = await self.session(message.peer, message.agent)
        try:
            return await seat.submit(message.id, message.text)
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

    # -- lanes -----------------------------------------------------------------------------------

    async def lane(self, session: SessionId) -> Lane:
        """The session's lane, opened where it is not; raises `Refused`."""
        if lane := self._lanes.get(session):
            lane.used = self._clock()
            return lane
        task = self._opening.get(session)
        if task is None:
            task = self._opening[session] = asyncio.create_task(self._open(session))
            task.add_done_callback(lambda _: self._opening.pop(session, None))
        try:
            return await asyncio.shield(task)
        except (StorageError, OSError) as error:
            log.warning("a transcript cannot be read", session=session, error=str(error))
            raise Refused(
                "storage_unavailable",
                "The gateway cannot read its transcripts just now. Please try again soon.",
            ) from error

    async def _open(self, session: SessionId) -> Lane:
        agent, _ = ids.parse(session)
        lane = self._agent(agent).lane(session)
        await lane.open()
        lane.used = self._clock()
        self._lanes[session] = lane
        if self._draining:
            await lane.drain()
        else:
            lane.resume()
        return lane

    @property
    def lanes(self) -> list[Lane]:
        """Those in memory now."""
        return list(self._lanes.values())

    async def sweep(self) -> None:
        """Let go of the lanes that nobody has used for a minute."""
        now = self._clock()
        for session, lane in list(self._lanes.items()):
            if lane.idle and now - lane.used >= _IDLE_SECONDS:
                del self._lanes[session]
                await self.store.settle(session)

    # -- life ------------------------------------------------------------------------------------

    async def resume(self) -> int:
        """Go on with whatever a stop or a crash left open; returns how many sessions had something."""
        resumed = 0
        for session in self.store.maybe_open():
            try:
                lane = await self.lane(session)
            except Refused:
                continue  # the session is tried again when somebody speaks in it, or at the next start
            if lane.conversation.open:
                resumed += 1
            elif lane.idle:
                del self._lanes[session]
                await self.store.settle(session)
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
        for session, lane in self._lanes.items():
            if lane.idle:
                await self.store.settle(session)


class Seat:
    """A `channels.base.Session`, and what commands may use of it (`commands.Scene`)."""

    def __init__(self, router: Router, lane: Lane, agent: Agent) -> None:
        self._router = router
        self._lane = lane
        self._agent = agent
        self._closed = False
        lane.held += 1

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

    async def submit(self, id: str, text: str) -> Receipt | Answer:
        self._small(text)
        match commands.parse(id, text):
            case commands.Call() as call:
                return await self._command(call)
            case str() as unknown:
                return Answer(unknown)
        return await self._lane.submit(id, commands.plain(text))

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
        if of in self._lane.conversation.seen:
            events = await self._router.store.recent(self.id, lambda record: _is_message(record, of))
            if events and isinstance(events[0].event, User):
                return await self._lane.submit(id, events[0].event.content)
        raise Refused("not_found", f"There is no message {of} in the recent part of this conversation.")

    def stop(self) -> bool:
        return self._lane.stop()

    async def after(self, cursor: str | None, limit: int, until: str | None) -> list[Record]:
        if cursor is not None and self._lane.conversation.cursor is None:
            raise BadCursor("nothing was said in this session yet")
        return await self._router.store.after(self.id, cursor, limit, until)

    async def before(self, cursor: str | None, limit: int) -> list[Record]:
        return await self._router.store.before(self.id, cursor, limit)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._lane.held -= 1


def _is_message(record: Record, id: str) -> bool:
    return isinstance(record.event, User) and record.event.id == id
