"""Who watches sessions whose turns another node runs: here, and from other nodes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from channels.errors import Refused
from gateway import notices
from gateway.background import Background
from gateway.lane import Lane
from gateway.relay import Item, Mirror, Relay
from session.errors import StorageError
from session.ids import SessionId
from session.protocols import SharedStore

if TYPE_CHECKING:
    from gateway.router import Router

_AGAIN = 0.5  # seconds until a node that did not run the session after all is followed by another try
_SNAPSHOT = 1.0  # seconds that somebody who comes waits to be shown what is being said


class Watching:
    """The mirrors of sessions that others run, and the relays of those that run here."""

    def __init__(
        self, store: SharedStore, router: Router, tell: Callable[[int | None, notices.Notice], None]
    ) -> None:
        self._store = store
        self._router = router
        self._tell = tell
        self._background = Background()
        self._mirrors: dict[SessionId, Mirror] = {}
        self._relays: dict[SessionId, Relay] = {}

    def close(self) -> None:
        """Show and tell nothing more."""
        self._background.close()
        for mirror in self._mirrors.values():
            mirror.close()
        for relay in self._relays.values():
            relay.close()

    # -- here ------------------------------------------------------------------------------------

    async def arrive(self, lane: Lane) -> None:
        """Somebody comes to this node: what others stored and say is known, as far as it can be."""
        # At the owner, too: a cursor that somebody got at another node must not be ahead of what is known
        # here, or what lies between the two would be shown twice.
        await lane.journal.catch_up()
        mirror = self._mirrors.get(lane.session)
        if lane.owner or (mirror is not None and mirror.ready.is_set()):
            return
        if (mirror := await self.watch(lane)) is not None:
            try:
                async with asyncio.timeout(_SNAPSHOT):
                    await mirror.ready.wait()
            except TimeoutError:
                return  # it is shown when it comes

    async def watch(self, lane: Lane) -> Mirror | None:
        """Ask the owner to tell us, from now on; None where there is none."""
        session = lane.session
        if (mirror := self._mirrors.get(session)) is None or mirror.lane is not lane:
            mirror = self._mirrors[session] = Mirror(lane)
        key = secrets.token_hex(4)
        mirror.begin(key)
        await lane.journal.catch_up()
        await lane.fresh()
        try:
            owner = await self._store.owner(session)
        except (StorageError, OSError):
            return None  # `lost` comes with the connection
        left = self._mirrors.get(session) is not mirror
        if owner is None or owner == self._store.node or mirror.key != key or left:
            return None  # whoever takes the session says so
        mirror.owner = owner
        self._tell(owner, notices.Watch(session, key))
        return mirror

    def again(self, lane: Lane) -> None:
        """Another node may run the session's turns now: ask anew, if anybody watches."""
        self._background.start(self._again(lane, 0.0))

    async def _again(self, lane: Lane, pause: float) -> None:
        await asyncio.sleep(pause)
        if lane.held and not lane.owner:
            await self.watch(lane)

    def left(self, lane: Lane) -> None:
        """Nobody is here any more who watches."""
        mirror = self._mirrors.get(lane.session)
        if mirror is not None and mirror.owner is not None:
            self._tell(mirror.owner, notices.Unwatch(lane.session, mirror.key))
        self.stop(lane.session)

    def stop(self, session: SessionId) -> None:
        """Show nothing more of what another node says."""
        if mirror := self._mirrors.pop(session, None):
            mirror.close()

    def news(self, session: SessionId, key: str, items: list[Item] | None) -> None:
        """The owner's word; None: it is the owner no longer."""
        mirror = self._mirrors.get(session)
        if mirror is None or mirror.key != key:
            return
        if items is None:
            self._background.start(self._again(mirror.lane, _AGAIN))
        else:
            mirror.hear(key, items)

    # -- elsewhere -------------------------------------------------------------------------------

    async def watched(self, node: int, session: SessionId, key: str) -> None:
        """Another node wants to be told."""
        lane = await self.mine(session)
        if lane is None:
            self._tell(node, notices.News(session, key, None))
            return
        if (relay := self._relays.get(session)) is None:
            relay = self._relays[session] = Relay(lane, self._send)
        relay.add(node, key)

    async def mine(self, session: SessionId) -> Lane | None:
        """The lane of a session whose turns this node runs."""
        if not self._store.holds(session):
            return None
        try:
            lane = await self._router.lane(session)
        except Refused:
            return None
        return lane if lane.owner else None

    def _send(self, session: SessionId, node: int, key: str, items: list[Item] | None) -> None:
        self._tell(node, notices.News(session, key, items))

    def unwatched(self, node: int, session: SessionId, key: str) -> None:
        """It does not any more."""
        if relay := self._relays.get(session):
            relay.remove(node, key)

    def died(self, node: int) -> None:
        """It is told nothing any more."""
        for relay in self._relays.values():
            relay.remove(node)

    def anew(self, session: SessionId) -> None:
        """The session begins anew, for those who watch it too."""
        if relay := self._relays.get(session):
            relay.anew()

    def all_anew(self) -> None:
        """What was told may be lost."""
        for relay in self._relays.values():
            relay.anew()

    def end(self, session: SessionId) -> None:
        """This node does not run the turns any more: tell nothing more."""
        if relay := self._relays.pop(session, None):
            relay.close()
