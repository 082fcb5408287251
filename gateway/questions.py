"""What one turn asks of its person: may this tool call run?"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from channels.base import Approval
from channels.errors import Refused
from gateway.journal import Journal
from gateway.turn import TurnEvent
from session.errors import LeaseLost, Repeated, StorageError
from session.events import Record, System, ToolCall, timestamp

SECONDS = 300.0  # that the person has

NOT_ASKED = "No tool call is waiting for this answer: it was answered already, or its time is over."
NOT_STORED = "The gateway cannot store your answer just now. Please give it again soon."
ELSEWHERE = "Another node of the gateway goes on with this reply. Please give your answer again in a moment."


class _Question:
    """`storing`: an answer on its way to the disk; `late`: none counts any more."""

    def __init__(self, asked: Approval) -> None:
        self.asked = asked
        self.storing: asyncio.Future[list[Record]] | None = None
        self.late = False
        self.allowed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> bool:
        """Whether an answer would count now: the first one does, and none beside it."""
        return self.storing is None and not self.late

    def settle(self, stored: asyncio.Future[list[Record]], allow: bool) -> None:
        """The answer counts when it is on disk; where it could not be stored, none was given."""
        if stored.cancelled() or stored.exception() is not None:
            self.storing = None
        elif not self.allowed.done():
            self.allowed.set_result(allow)


class Questions:
    """Those of one attempt at a turn."""

    def __init__(self, turn: str, journal: Journal, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._turn = turn
        self._journal = journal
        self._sleep = sleep
        self._questions: dict[str, _Question] = {}  # by call; those whose tool waits
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        """How many tools wait."""
        return len(self._questions)

    @property
    def open(self) -> list[Approval]:
        """Those that wait for an answer, oldest first."""
        return [question.asked for question in self._questions.values() if question.open]

    async def ask(self, call: ToolCall, keep: Callable[[list[TurnEvent]], Awaitable[None]]) -> bool:
        """Whether the person lets the call run; False where they do not say in time, which `keep` stores."""
        call_id = call.call_id or ""
        expires = timestamp(datetime.now(UTC) + timedelta(seconds=SECONDS))
        asked = Approval(self._turn, call_id, call.name, call.args, expires, next(self._numbers))
        question = self._questions[call_id] = _Question(asked)
        try:
            self._journal.feed.publish(asked)
            await self._in_time(question)
            while question.storing and not question.allowed.done():
                await asyncio.wait({question.storing})
            if not question.allowed.done():
                question.late = True
                await keep([self._answer(call_id, False, None)])
                return False
            return question.allowed.result()
        finally:
            del self._questions[call_id]

    async def _in_time(self, question: _Question) -> None:
        """Wait for the person's word, or until it is too late for one."""
        timer = asyncio.ensure_future(self._sleep(SECONDS))
        try:
            await asyncio.wait((question.allowed, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    async def answer(self, call_id: str, allow: bool, id: str | None) -> None:
        """The person's word, as message `id`; returns when it is on disk.

        Raises `Refused` where nobody waits for it, and where the disk is away: then it can be given again.
        """
        question = self._questions.get(call_id)
        if question is None or not question.open:
            raise Refused("not_found", NOT_ASKED)
        question.storing = stored = self._journal.append([self._answer(call_id, allow, id)], leased=True)
        # Whoever answers may be gone meanwhile: what was stored counts all the same.
        stored.add_done_callback(lambda stored: question.settle(stored, allow))
        try:
            await asyncio.shield(stored)
        except StorageError as error:
            raise Refused("storage_unavailable", NOT_STORED) from error
        except LeaseLost as error:
            raise Refused("storage_unavailable", ELSEWHERE) from error
        except Repeated:
            return  # the answer to an earlier try was lost

    def _answer(self, call_id: str, allow: bool, id: str | None) -> System:
        return System(name="approval", id=id, turn=self._turn, call_id=call_id, allow=allow)
