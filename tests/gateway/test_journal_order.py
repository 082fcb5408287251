"""Appends are not always over in the order in which they were asked for: a refused one may be over first."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from gateway.journal import Journal
from session.errors import LeaseLost
from session.events import Assistant, Event, Record, User
from session.ids import SessionId
from session.protocols import TranscriptStore


class Held:
    """A store whose appends are over when the test says so."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[list[Record]]] = []

    def append(self, session: SessionId, batch: list[Event], **how: Any) -> asyncio.Future[list[Record]]:
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


async def test_an_early_refusal_does_not_hide_the_append_before_it() -> None:
    store = Held()
    journal = Journal(SessionId("agent:main:cli:work"), cast(TranscriptStore, store), 20, push=False)
    message = User(content="hello", id="m1")
    journal.append([message])
    journal.append([Assistant(content="hi")], leased=True)
    first, second = store.futures
    second.set_exception(LeaseLost("another node runs this session's turns"))
    waiting = asyncio.create_task(journal.quiet())
    await asyncio.sleep(0)
    assert journal.busy
    first.set_result([Record("1.x", message, b"{}")])
    async with asyncio.timeout(5):
        await waiting
    assert not journal.busy
    assert list(journal.conversation.open) == ["m1"]
