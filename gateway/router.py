"""Whose message is it, is it a command, and which lane does it go to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from channels.base import Answer, Courier, InboundMessage, Receipt
from channels.errors import Refused
from gateway.arrivals import NOT_STORED
from gateway.journal import readable
from gateway.lane import Lane
from gateway.notices import Done, Erase
from gateway.seat import Seat
from session import ids
from session.ids import AgentId, Peer, PeerId, Provider, SessionId
from session.protocols import TranscriptStore

if TYPE_CHECKING:
    from gateway.nodes import Nodes

log = structlog.get_logger(__name__)

_IDLE_SECONDS = 60.0
NOT_DELETED = "The gateway cannot delete anything just now. Please try again soon."
_NOBODY = Peer(Provider("probe"), PeerId("watchdog"))


async def _nobody_knocks(code: str) -> tuple[bool, str]:
    return False, "No channel with pairing is running."


async def _at_once() -> None:
    return


class Route(Protocol):
    """Which agent answers whom: shell patterns of provider and peer id (`config.Route`)."""

    @property
    def provider(self) -> str: ...

    @property
    def peer(self) -> str: ...

    @property
    def agent(self) -> str: ...


class Choice(Protocol):
    """The models of an agent: `gateway.agent.chain.AgentModels`."""

    def label(self, chosen: str | None = None) -> str:
        """The name, as people see it at this moment, of the model that is chosen, or else the agent's own."""

    def choices(self, *, every: bool) -> dict[str, str]:
        """What may be chosen by whom: each model's name as people see it, by its configured one."""


class Agent(NamedTuple):
    """What the router must know of an agent."""

    name: AgentId
    models: Choice
    lane: Callable[[SessionId], Lane]  # makes the lane of one of its sessions
    known: Callable[[], Awaitable[None]] = _at_once  # waits, briefly, while its model is being looked for


class Router:
    """The `channels.base.Inbox`: opens lanes on demand, keeps those that are at work, lets idle ones go."""

    def __init__(
        self,
        store: TranscriptStore,
        agents: Mapping[str, Agent],
        about: Callable[[Lane], Awaitable[list[tuple[str, str]]]],
        routes: Sequence[Route] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.about = about
        self._agents = agents
        self._routes = routes
        self._clock = clock
        self._lanes: dict[SessionId, Lane] = {}
        self._opening: dict[SessionId, asyncio.Task[None]] = {}
        self._unread: set[SessionId] = set()  # may have something open, and could not be read at the start
        self.approve: Callable[[str], Awaitable[tuple[bool, str]]] = (
            _nobody_knocks  # set by whoever has strangers
        )
        self._couriers: dict[Provider, Courier] = {}
        self._attended: set[SessionId] = set()  # of which a courier knows
        self.draining = False
        self.nodes: Nodes | None = None  # set by `Nodes`, where the store is shared

    # -- the inbox -------------------------------------------------------------------------------

    async def session(self, peer: Peer, agent: AgentId | None = None, *, operator: bool = False) -> Seat:
        """Open the peer's session; raises `Refused`."""
        await self._agent(agent or self._routed(peer)).known()
        seat = await self._seat(peer, agent, operator=operator)
        if self.nodes:
            await self._arrived(self.nodes, seat)
        return seat

    async def _arrived(self, nodes: Nodes, seat: Seat) -> None:
        """Whoever comes is to see what is stored, not what this node last heard of."""
        try:
            await nodes.watching.arrive(seat.lane)
            if self.store.fault:
                raise Refused("storage_unavailable", NOT_STORED)
        except BaseException:
            seat.close()
            raise

    async def _seat(self, peer: Peer, agent: AgentId | None, *, operator: bool = False) -> Seat:
        chosen = self._agent(agent or self._routed(peer))
        return Seat(self, await self.lane(ids.session_id(chosen.name, peer)), chosen, operator=operator)

    async def submit(self, message: InboundMessage) -> Receipt | Answer:
        """Store a message, or carry out the command that it is; raises `Refused`."""
        seat = await self._seat(message.peer, message.agent)
        try:
            return await seat.submit(message.id, message.text, hold=message.hold, insistent=message.insistent)
        finally:
            seat.close()

    async def delete(self, peer: Peer, agent: AgentId | None = None) -> bool:
        """Remove the peer's session for good; False where there is none."""
        return await self.delete_session(ids.session_id(self._agent(agent or self._routed(peer)).name, peer))

    async def delete_session(self, session: SessionId) -> bool:
        """Remove a session for good, whatever it is doing; False where there is none. Raises `Refused`."""
        lane = await self.lane(session)
        if self.nodes and isinstance(done := await self.nodes.errands.send(lane, Erase()), Done):
            return done.found
        return await self.erase(lane)

    async def erase(self, lane: Lane) -> bool:
        """Remove a session whose turns no other node runs; False where there is none. Raises `Refused`."""
        try:
            found = await lane.erase()
        except OSError as error:
            log.warning("a session cannot be deleted", session=lane.session, error=str(error))
            raise Refused("storage_unavailable", NOT_DELETED) from error
        if self.nodes:
            self.nodes.watching.anew(lane.session)
        return found

    async def archive(self, session: SessionId) -> str | None:
        """Compress a session that nobody is in, or say why not; raises `OSError`."""
        if session in self._lanes or session in self._opening:
            return "somebody is in it, or was a minute ago"
        return await self.store.archive(session)

    def models(self, agent: AgentId) -> Choice:
        """An agent's models."""
        return self._agent(agent).models

    def _routed(self, peer: Peer) -> str:
        """The agent of the first route that fits; `main` where none does."""
        for route in self._routes:
            if fnmatchcase(peer.provider, route.provider) and fnmatchcase(peer.peer_id, route.peer):
                return route.agent
        return "main"

    def _agent(self, asked: str) -> Agent:
        try:
            return self._agents[asked]
        except KeyError:
            raise Refused("not_found", f"There is no agent {asked!r}.") from None

    def employ(self, courier: Courier) -> None:
        """Let a push channel attend its sessions as they come to memory; before `resume`."""
        self._couriers[courier.provider] = courier

    def renew(self, agents: Mapping[str, Agent], routes: Sequence[Route]) -> None:
        """Go on with other agents and routes; of those that were there none may be missing."""
        self._agents, self._routes = agents, routes
        for session, lane in self._lanes.items():
            agent, _ = ids.parse(session)
            lane.adopt(self._agent(agent).lane(session))

    # -- lanes -----------------------------------------------------------------------------------

    async def lane(self, session: SessionId) -> Lane:
        """The session's lane, opened where it is not; raises `Refused`."""
        # Looked up again after the wait: `resume` may have let go of the lane, and there must not be two.
        while (lane := self._lanes.get(session)) is None:
            task = self._opening.get(session)
            if task is None:
                task = self._opening[session] = asyncio.create_task(self._open(session))
                task.add_done_callback(lambda task: self._opened(session, task))
            with readable(session):
                await asyncio.shield(task)
        lane.used = self._clock()
        return lane

    def _opened(self, session: SessionId, task: asyncio.Task[None]) -> None:
        del self._opening[session]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: that is no "exception never retrieved"

    async def _open(self, session: SessionId) -> None:
        agent, _ = ids.parse(session)
        chosen = self._agent(agent)
        lane = chosen.lane(session)
        await lane.open()
        if (renewed := self._agent(agent)) is not chosen:
            lane.adopt(renewed.lane(session))
        lane.used = self._clock()
        self._lanes[session] = lane
        if lane.owner:
            self.attend(lane)
        if self.draining:
            await self._drained(lane)
        else:
            lane.resume()

    def find(self, session: SessionId) -> Lane | None:
        """The session's lane, where it is in memory."""
        return self._lanes.get(session)

    def seat(self, lane: Lane, *, operator: bool = False) -> Seat:
        """A seat that does not hold the session."""
        agent, _ = ids.parse(lane.session)
        return Seat(self, lane, self._agent(agent), held=False, operator=operator)

    def attend(self, lane: Lane) -> None:
        """Let the session's channel bring its replies: this node runs its turns."""
        if (courier := self._courier(lane.session)) and lane.session not in self._attended:
            self._attended.add(lane.session)
            courier.attend(self.seat(lane))

    def dismiss(self, lane: Lane) -> None:
        """Its replies are brought by another node from now on, or there are none."""
        if (courier := self._courier(lane.session)) and lane.session in self._attended:
            self._attended.discard(lane.session)
            courier.dismiss(lane.session)

    def left(self, lane: Lane) -> None:
        """Somebody let go of the session."""
        if self.nodes and not lane.held:
            self.nodes.watching.left(lane)

    def _courier(self, session: SessionId) -> Courier | None:
        _, peer = ids.parse(session)
        return self._couriers.get(peer.provider)

    async def _let_go(self, lane: Lane) -> None:
        del self._lanes[lane.session]
        lane.journal.close()  # before anything is waited for: whoever comes meanwhile follows it anew
        self.dismiss(lane)
        if self.nodes:
            self.nodes.gone(lane)
        if lane.owner:
            await self.store.settle(lane.session)

    @property
    def lanes(self) -> list[Lane]:
        """Those in memory now."""
        return list(self._lanes.values())

    async def probe(self) -> None:
        """Open a lane that nobody uses and let it go; what ails the disk alone is no error here."""
        try:
            await self._let_go(await self.lane(ids.session_id("main", _NOBODY)))
        except Refused as refused:
            log.warning("the probe's session cannot be opened", error=str(refused))

    async def sweep(self) -> None:
        """Let go of the lanes that nobody has used for a minute; read what could not be read before."""
        await self._resume(tuple(self._unread))
        now = self._clock()
        for lane in self.lanes:
            if lane.idle and now - lane.used >= _IDLE_SECONDS:
                await self._let_go(lane)

    # -- life ------------------------------------------------------------------------------------

    async def resume(self) -> int:
        """Go on with whatever a stop or a crash left open; returns how many sessions had something.

        `sweep` goes on with those that the disk does not give just now.
        """
        return await self._resume(self.store.maybe_open())

    async def _resume(self, sessions: Iterable[SessionId]) -> int:
        resumed = 0
        for session in sessions:
            self._unread.discard(session)
            try:
                lane = await self.lane(session)
            except Refused as refused:
                if refused.code == "storage_unavailable":
                    self._unread.add(session)
                continue
            if not lane.conversation.settled:
                resumed += 1
            elif lane.idle:
                await self._let_go(lane)
        return resumed

    async def drain(self, seconds: float) -> None:
        """Take in nothing more, finish what is being answered for so long, leave the rest open."""
        self.draining = True
        if self._lanes:
            draining = [asyncio.create_task(self._drained(lane)) for lane in self.lanes]
            _, late = await asyncio.wait(draining, timeout=seconds)
            await asyncio.gather(*(lane.close() for lane in self.lanes))
            if late:
                await asyncio.wait(late)
        for lane in self.lanes:
            if lane.idle and lane.owner:
                await self.store.settle(lane.session)

    async def _drained(self, lane: Lane) -> None:
        """End what is being answered, and let another node go on."""
        lane.hands_over = self.nodes is not None and bool(self.nodes.others)
        await lane.drain()
        if self.nodes and lane.owner and (lane.conversation.settled or lane.session not in self._attended):
            await self.nodes.release(lane)
