"""The gateway with one bug in it: `PLANTED=NAME python -m tests.faults.planted run …`.

Each is what somebody might write on a bad day, and what the harness must see. With CRASH it ends at the
moment at which that bug does its harm.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from channels.cli.server import _Lines
from channels.telegram.polling import Poller
from channels.telegram.sending import Sending
from gateway.agent.runner import AgentRunner
from gateway.agent.tools import Toolbox
from gateway.arrivals import Arrivals
from gateway.lane import Lane
from gateway.redaction import Redactor
from session.events import Assistant, System
from session.store import Store
from tests.faults.crashing import STATUS


def _die() -> None:
    if os.environ.get("CRASH"):
        os._exit(STATUS)


def the_offset_moves_early() -> None:
    """What is in memory is confirmed; the power goes before it is stored."""

    async def taken(self: Any, updates: list[Any], offset: int | None) -> int | None:
        later.append(asyncio.create_task(store(self, updates)))
        return int(updates[-1]["update_id"]) + 1

    async def store(self: Any, updates: list[Any]) -> None:
        await confirmed.wait()
        _die()
        await self._take(updates)

    async def ask(self: Any, offset: int | None, seconds: float) -> list[Any]:
        answer: list[Any] = await really_ask(self, offset, 0 if later else seconds)
        if later:  # this request has confirmed them
            confirmed.set()
        return answer

    later: list[asyncio.Task[None]] = []
    confirmed = asyncio.Event()
    really_ask = Poller._ask
    _patch(Poller, "_taken", taken)
    _patch(Poller, "_ask", ask)


def repeats_are_not_recognised() -> None:
    """A message whose acknowledgement was lost is sent again, and taken for a new one."""

    async def repeat(self: Any, id: str, text: str | None = None) -> None:
        return None

    async def send(self: Any, frames: list[bytes]) -> None:
        if any(b'"type":"ack"' in frame for frame in frames):
            _die()
        await really_send(self, frames)

    really_send = _Lines.send
    _patch(Arrivals, "repeat", repeat)
    _patch(_Lines, "send", send)


def tools_run_twice() -> None:
    """A call whose result was good is made again."""

    async def call(self: Any, *args: Any) -> Any:
        await really_call(self, *args)
        return await really_call(self, *args)

    really_call = Toolbox.call
    _patch(Toolbox, "call", call)


def answers_are_sent_twice() -> None:
    """What was put into a message is sent as one more."""

    async def edit(self: Any, chat: Any, message_id: int, text: Any) -> None:
        await really_edit(self, chat, message_id, text)
        await self.send(chat, text)

    really_edit = Sending.edit
    _patch(Sending, "edit", edit)


def answers_go_astray() -> None:
    """What one session is told is stored in another as well."""

    def append(self: Any, session: Any, batch: list[Any], **how: Any) -> Any:
        for other in met:
            if other != session and any(isinstance(event, Assistant) for event in batch):
                really_append(self, other, [Assistant(content=batch[-1].content)])
        met.add(session)
        return really_append(self, session, batch, **how)

    met: set[Any] = set()
    really_append = Store.append
    _patch(Store, "append", append)


def secrets_are_logged() -> None:
    """An address with a token in it is logged, and nobody looks at what is logged."""
    import structlog

    async def ask(self: Any, *args: Any) -> Any:
        structlog.get_logger("planted").warning("asking", url=self._root)
        return await really_ask(self, *args)

    really_ask = Poller._ask
    _patch(Redactor, "text", lambda self, text: text)
    _patch(Poller, "_ask", ask)


def messages_are_swallowed() -> None:
    """What was acknowledged is never begun."""
    _patch(Lane, "resume", lambda self: None)


def turns_fail() -> None:
    """At a terminal, where nothing had gone wrong."""

    async def run(self: Any, ask: Any) -> Any:
        if ":cli:" in ask.session:
            yield [System(name="turn_failed", content="Something went wrong.")]
            return
        async for update in really_run(self, ask):
            yield update

    really_run = AgentRunner.run
    _patch(AgentRunner, "run", run)


def _patch(owner: type, name: str, new: Callable[..., Any]) -> None:
    assert callable(getattr(owner, name))  # or it would plant nothing
    setattr(owner, name, new)


BUGS = {
    bug.__name__: bug
    for bug in (
        the_offset_moves_early,
        repeats_are_not_recognised,
        tools_run_twice,
        answers_are_sent_twice,
        answers_go_astray,
        secrets_are_logged,
        messages_are_swallowed,
        turns_fail,
    )
}

if __name__ == "__main__":
    if planted := os.environ.get("PLANTED"):
        BUGS[planted]()
    from gateway.__main__ import main

    sys.exit(main())
