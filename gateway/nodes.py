"""The other nodes over the same store: which runs a session's turns, and what they say to each other."""

from __future__ import annotations

import asyncio

import structlog

from channels.errors import Refused
from gateway import notices
from gateway.background import Background
from gateway.errands import Errands
from gateway.lane import Lane
from gateway.ledger import Ledger
from gateway.notices import Assembly
from gateway.router import Router
from gateway.watching import Watching
from session.errors import StorageError
from session.events import Usage
from session.ids import SessionId
from session.protocols import Node, SharedStore

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0  # between two looks at who lives
_AT_ONCE = 64  # abandoned sessions that are taken over at a time, less the turns that run here
_AGAIN = 0.5  # seconds until a transcript that cannot be read is tried again
_ELSEWHERE = 10.0  # seconds until a session that this node is not made for is offered to the others


class Nodes:
    """This node among the others; made before the store is opened, by whose words it works."""

    def __init__(self, store: SharedStore, router: Router, ledger: Ledger) -> None:
        self.store = store
        self.others: list[Node] = []  # that lived a few seconds ago
        self._ready = False  # from `run` to `close`: it can go on with what others leave open
        self._ledger = ledger
        self.watching = Watching(store, router, self._tell)
        self.errands = Errands(store, router, self._tell)
        self._router = router
        self._background = Background()
        self._waking: dict[SessionId, bool] = {}  # whether another look is due behind the one under way
        self._assembly = Assembly()
        store.room, store.woken, store.taken = self._room, self._woken, self._taken
        store.deposed, store.heard, store.lost = self._deposed, self._heard, self._lost
        router.nodes = self
        ledger.tell = self._used

    async def run(self) -> None:
        """Take part, and look again and again who else lives, until cancelled."""
        self._ready = True
        self._tell(None, notices.Here())
        while True:
            await self._look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        try:
            others = [node for node in await self.store.nodes() if node.id != self.store.node]
        except (StorageError, OSError) as error:
            log.info("the other nodes are not known", error=str(error))
            return
        for died in {node.id for node in self.others} - {node.id for node in others}:
            self.watching.died(died)
        self.others = others

    def close(self) -> None:
        """Say and hear nothing more."""
        self._ready = False
        self._background.close()
        self.watching.close()
        self.errands.close()

    @property
    def name(self) -> str:
        """This node's, for people."""
        return self.store.name or str(self.store.node)

    @property
    def names(self) -> list[str]:
        """Those of the nodes that live, this one's first."""
        return [self.name, *(node.name for node in self.others)]

    @property
    def leases(self) -> int:
        """How many of the sessions in memory this node runs the turns of."""
        return sum(lane.owner for lane in self._router.lanes)

    # -- what the store says ---------------------------------------------------------------------

    def _room(self) -> int:
        if not self._ready or self._router.draining:
            return 0
        return max(0, _AT_ONCE - sum(lane.working and lane.owner for lane in self._router.lanes))

    def _woken(self, session: SessionId) -> None:
        if session in self._waking:
            self._waking[session] = True
        else:
            self._waking[session] = False
            self._background.start(self._wake(session))

    async def _wake(self, session: SessionId) -> None:
        """Go on with a session whose turns this node runs."""
        try:
            while self.store.holds(session):
                self._waking[session] = False
                try:
                    await self._own(await self._router.lane(session))
                except Refused as refused:
                    if refused.code == "storage_unavailable":
                        await asyncio.sleep(_AGAIN)
                        continue
                    log.warning("an open session is left to others", session=session, reason=refused.public)
                    await asyncio.sleep(_ELSEWHERE)  # they may be no better, and give it back
                    await self.store.release(session)
                    self._tell(None, notices.Released(session))
                    return
                if not self._waking[session]:
                    return
        finally:
            del self._waking[session]

    def _taken(self, session: SessionId) -> None:
        self.watching.stop(session)
        self._tell(None, notices.Taken(session))
        if self._router.draining:
            self._background.start(self.store.release(session))  # who writes to us now is answered by others
        elif lane := self._router.find(session):
            lane.journal.doubt()  # no turn is to begin while what others stored is still coming in
            self._background.start(self._own(lane))

    async def _own(self, lane: Lane) -> None:
        """This node runs the session's turns: go on with them, once all that is stored is known."""
        while lane.owner and self._router.find(lane.session) is lane:
            await lane.journal.catch_up()
            await lane.fresh()
            if self.store.fault is None:
                break
            await asyncio.sleep(_AGAIN)
        if lane.owner and self._router.find(lane.session) is lane:
            self._router.attend(lane)
            lane.resume()

    def _deposed(self, sessions: list[SessionId]) -> None:
        for session in sessions:
            if lane := self._router.find(session):
                lane.lose()
                self.gave(lane)

    async def release(self, lane: Lane) -> None:
        """Let another node run the session's turns."""
        await self.store.release(lane.session)
        self._tell(None, notices.Released(lane.session))
        self.gave(lane)

    async def _offered(self, lane: Lane) -> None:
        """Another node lets go: where somebody waits here, it goes on here at once."""
        await lane.journal.catch_up()
        if lane.conversation.open and not self._router.draining:
            try:
                await self.store.claim(lane.session)
            except (StorageError, OSError):
                return  # whoever looks at open sessions finds it

    def gave(self, lane: Lane) -> None:
        """This node does not run the session's turns any more."""
        self.watching.end(lane.session)
        self._router.dismiss(lane)
        self.watching.again(lane)

    def gone(self, lane: Lane) -> None:
        """The lane has left memory."""
        self.watching.stop(lane.session)
        self.watching.end(lane.session)

    def _lost(self) -> None:
        self._assembly = Assembly()
        self._tell(None, notices.Here())
        self._ledger.doubt()
        self.watching.all_anew()
        for lane in self._router.lanes:
            if lane.owner:
                self._woken(lane.session)
            else:
                self.watching.again(lane)

    # -- notices ---------------------------------------------------------------------------------

    def _tell(self, node: int | None, notice: notices.Notice) -> None:
        for part in notices.parts(notice):
            self.store.notify(node, part)

    def hold(self, session: SessionId, seconds: float) -> None:
        """More of the same is expected: whoever answers is to wait for it."""
        self._tell(None, notices.Hold(session, seconds))

    def _used(self, session: SessionId, usage: Usage) -> None:
        if self.others:
            self._tell(None, notices.Used(session, usage))

    def _heard(self, sender: int, text: str) -> None:
        try:
            notice = self._assembly.take(sender, text)
        except ValueError as error:
            log.warning("a notice of another node is not understood", node=sender, error=str(error))
            return
        match notice:
            case notices.Here():
                self._background.start(self._look())
            case notices.Taken(session):
                if lane := self._router.find(SessionId(session)):
                    self.watching.again(lane)
            case notices.Released(session):
                if (lane := self._router.find(SessionId(session))) and lane.held:
                    self._background.start(self._offered(lane))
            case notices.Watch(session, key):
                self._background.start(self.watching.watched(sender, SessionId(session), key))
            case notices.Unwatch(session, key):
                self.watching.unwatched(sender, SessionId(session), key)
            case notices.News(session, key, items):
                self.watching.news(SessionId(session), key, items)
            case notices.Hold(session, seconds):
                if lane := self._router.find(SessionId(session)):
                    lane.quiet.hold(seconds)
            case notices.Used(session, usage):
                self._ledger.heard(SessionId(session), usage)
            case notices.Request():
                self._background.start(self._serve(sender, notice))
            case notices.Reply(id, outcome):
                self.errands.answered(id, outcome)

    async def _serve(self, sender: int, request: notices.Request) -> None:
        await self.errands.serve(sender, request, await self.watching.mine(SessionId(request.session)))
