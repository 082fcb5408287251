"""What only the owner of a session can do, asked of it by other nodes: commands, answers, a stop, an end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from channels.base import Answer, Receipt
from channels.errors import Refused
from gateway import commands, notices
from gateway.background import Background
from gateway.journal import readable
from gateway.lane import Lane
from gateway.notices import Command, Done, NotMine, Refusal, Request
from session.ids import SessionId
from session.protocols import SharedStore

if TYPE_CHECKING:
    from gateway.router import Router

log = structlog.get_logger(__name__)

_AGAIN = 0.3  # seconds until it is asked again who the owner is
_ANSWER = 4.0  # seconds that an owner has
_PATIENCE = 13.0  # seconds in all: a node that died is noticed, and its sessions are taken over, in ten
BUSY = "Another node of the gateway goes on with this conversation just now. Please try again in a moment."


class Errands:
    """Sends requests to owners, and carries out those that come here."""

    def __init__(
        self, store: SharedStore, router: Router, tell: Callable[[int | None, notices.Notice], None]
    ) -> None:
        self._store = store
        self._router = router
        self._tell = tell
        self._background = Background()
        self._asked: dict[int, asyncio.Future[notices.Outcome]] = {}
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Ask nothing more."""
        self._background.close()

    async def send(self, lane: Lane, what: notices.What) -> Receipt | Answer | Done | None:
        """Have the session's owner do it, or say that it is to be done here (None). Raises `Refused`."""
        clock = asyncio.get_running_loop().time
        until = clock() + _PATIENCE
        while clock() < until:
            with readable(lane.session):
                if not self._router.draining and await self._store.claim(lane.session):
                    return None
                owner = await self._store.owner(lane.session)
            if owner is None or owner == self._store.node:
                return None
            match await self._ask(owner, lane.session, what):
                case Refusal() as refusal:
                    raise refusal.error()
                case Receipt() | Answer() | Done() as outcome:
                    await lane.journal.catch_up()
                    return outcome
            await asyncio.sleep(_AGAIN)
        raise Refused("storage_unavailable", BUSY)

    async def _ask(self, node: int, session: SessionId, what: notices.What) -> notices.Outcome:
        id = next(self._numbers)
        answer: asyncio.Future[notices.Outcome] = asyncio.get_running_loop().create_future()
        self._asked[id] = answer
        try:
            self._tell(node, Request(id, session, what))
            async with asyncio.timeout(_ANSWER):
                return await answer
        except TimeoutError:
            return NotMine()
        finally:
            del self._asked[id]

    def answered(self, id: int, outcome: notices.Outcome) -> None:
        """The owner's answer."""
        if (asked := self._asked.get(id)) and not asked.done():
            asked.set_result(outcome)

    def stop(self, lane: Lane) -> None:
        """Have the owner stop the running turn, in the background."""
        self._background.start(self._stop(lane))

    async def _stop(self, lane: Lane) -> None:
        try:
            if await self.send(lane, notices.Stop()) is None:
                lane.stop()
        except Refused as refused:
            log.warning("a turn was not stopped", session=lane.session, reason=refused.public)

    async def serve(self, sender: int, request: Request, lane: Lane | None) -> None:
        """Another node asks for something; `lane` is the session's, where its turns run here."""
        outcome: notices.Outcome = NotMine()
        if lane is not None:
            await lane.journal.catch_up()
            try:
                outcome = await self._carry_out(lane, request.what)
            except Refused as refused:
                outcome = Refusal.of(refused)
        self._tell(sender, notices.Reply(request.id, outcome))

    async def _carry_out(self, lane: Lane, what: notices.What) -> notices.Outcome:
        seat = self._router.seat(lane, operator=isinstance(what, Command) and what.operator)
        match what:
            case Command(name, argument, id):
                return await seat.carry_out(commands.Call(name, argument, id))
            case notices.Retry(id, of):
                return await seat.ask_again(id, of)
            case notices.Stop():
                return Done(lane.stop())
            case notices.Approve(call_id, allow):
                await lane.approve(call_id, allow)
                return Done()
            case notices.Erase():
                return Done(await self._router.erase(lane))
