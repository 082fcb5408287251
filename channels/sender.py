"""What one client is sent: the welcome, a replay, then live updates and answers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from channels import wire
from channels.base import Session, Watch
from channels.outbox import Item, Outbox
from channels.view import View, event_frame
from session.errors import BadCursor

REPLAYED = 50  # events that a client without a cursor gets
_CHUNK = 64
_BATCH = 256 * 1024  # bytes that are handed to the carrier before it is waited for


class TooSlow(Exception):
    """The client does not take what it is sent."""


class Sink(Protocol):
    """Where frames go: a `channels.connection.Carrier`."""

    async def send(self, frames: list[bytes]) -> None:
        """Send frames, and wait while the client does not take them; raises `ConnectionError`."""


class Sender:
    """The way to one client. It has a task only while there is something to send: most clients are idle.

    `failed` is told at most once that nothing more can be sent, and why.
    """

    __slots__ = ("_due", "_failed", "_outbox", "_session", "_sink", "_task", "_view")

    def __init__(
        self, sink: Sink, view: View, session: Session, failed: Callable[[BaseException], None]
    ) -> None:
        self._sink = sink
        self._view = view
        self._session = session
        self._failed = failed
        self._outbox = Outbox()
        self._task: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None  # set while the view holds something back

    def begin(self, welcome: wire.Welcome, watch: Watch, after: str | None) -> None:
        """Send the welcome and what was stored since the cursor `after`, before all that is put."""
        self._start(self._opening(welcome, watch, after))

    def put(self, item: Item) -> None:
        """Send something, in order; returns at once."""
        if self._outbox.overflown:
            return
        self._outbox.put(item)
        if self._outbox.overflown:
            # The task may be stuck in a client that does not read: it is not asked.
            self._failed(TooSlow())
        else:
            self._wake()

    async def close(self) -> None:
        """Send nothing more."""
        if self._due is not None:
            self._due.cancel()
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait({task})

    def _wake(self) -> None:
        if self._task is None:
            self._start(self._deliver())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        if fault := task.exception():
            self._failed(fault)
        elif self._outbox:
            self._wake()
        elif (pause := self._view.pause) is not None and self._due is None:
            self._due = asyncio.get_running_loop().call_later(pause, self._is_due)

    def _is_due(self) -> None:
        self._due = None
        self._wake()

    # -- the task --------------------------------------------------------------------------------

    async def _opening(self, welcome: wire.Welcome, watch: Watch, after: str | None) -> None:
        running = await self._view.running(watch.running)
        await self._send([msgspec.structs.replace(welcome, running=running)])
        await self._replay(after, watch.cursor)
        for asked in watch.running.approvals if watch.running else ():
            await self._send(await self._view.frames(asked))
        await self._deliver()

    async def _deliver(self) -> None:
        while True:
            frames: list[wire.ServerFrame] = []
            for item in self._outbox.take():
                frames += await self._frames(item)
                if isinstance(item, wire.History):  # pages are large: the next one waits for the client
                    await self._send(frames)
                    frames = []
            frames += await self._view.due()
            await self._send(frames)
            if not self._outbox:
                return

    async def _replay(self, after: str | None, until: str | None) -> None:
        if until is None:
            return
        if after is None:
            records = await self._session.before(until, REPLAYED)
            await self._send([event_frame(await self._view.event(record)) for record in records])
            return
        while records := await self._session.after(after, _CHUNK, until):
            await self._send([event_frame(await self._view.event(record)) for record in records])
            after = records[-1].cursor

    async def _frames(self, item: Item) -> list[wire.ServerFrame]:
        match item:
            case wire.History():
                return [await self._page(item)]
            case wire.Ack() | wire.Notice() | wire.Error() | wire.Result():
                return [item]
        return await self._view.frames(item)  # type: ignore[arg-type] # what is left are updates: Item is a union

    async def _page(self, asked: wire.History) -> wire.ServerFrame:
        wanted = asked.limit + 1 + (asked.before is not None)
        try:
            records = await self._session.before(asked.before, wanted)
        except BadCursor:
            return wire.Error(code="not_found", message="The cursor is not of this session. Reload it.")
        more = len(records) == wanted
        kept = records[more:] if asked.before is None else records[more:-1]
        items: list[wire.EventItem] = []
        size = 0
        for record in reversed(kept):
            item = await self._view.event(record)
            size += len(record.line) + len(item.html or "") + 100
            if size > wire.MAX_SERVER_FRAME and items:
                more = True
                break
            items.append(item)
        return wire.HistoryPage(events=items[::-1], more=more)

    async def _send(self, frames: list[wire.ServerFrame]) -> None:
        # A replay may be fifty large events: they go as the client takes them, not all at once.
        batch: list[bytes] = []
        size = 0
        for frame in frames:
            batch.append(wire.encode(frame))
            size += len(batch[-1])
            if size >= _BATCH:
                await self._sink.send(batch)
                batch, size = [], 0
        if batch:
            await self._sink.send(batch)
