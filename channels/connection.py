"""One client's conversation over the frames of `wire`, whatever carries them."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

import msgspec
import structlog

from channels import wire
from channels.base import Answer, Control, Inbox, Receipt, Session, Watch
from channels.errors import ErrorCode, Refused
from channels.outbox import Item, Outbox
from channels.view import HtmlView, Renderer, TextView, View, event_frame
from session.errors import BadCursor
from session.ids import AgentId, Peer

log = structlog.get_logger(__name__)

HELLO_SECONDS = 10.0
REPLAYED = 50  # events that a client without `after` gets
_CHUNK = 64
_BATCH = 256 * 1024  # bytes that are handed to the carrier before it is waited for
_BAD_IN_A_ROW = 3

# The WebSocket close codes that follow an error; other errors leave the connection open.
CLOSING: dict[ErrorCode, int] = {
    "hello_expected": 1008,
    "unsupported_protocol": 1008,
    "unauthorized": 1008,
    "frame_too_large": 1009,
    "bad_utf8": 1007,
}
TOO_SLOW = 1013


class Carrier(Protocol):
    """What carries the frames."""

    async def receive(self) -> bytes | str | None:
        """The next frame; None when the client is gone. Raises `Refused` where it is too large."""

    async def send(self, frames: list[bytes]) -> None:
        """Send frames, and wait while the client does not take them; raises `ConnectionError`."""

    async def close(self, code: int) -> None:
        """Say goodbye, with a WebSocket close code where there is one."""


class Entry(NamedTuple):
    """Who the client turned out to be; `secret` is what opens the session again."""

    peer: Peer
    agent: AgentId | None = None
    secret: str | None = None
    operator: bool = False


class Door(Protocol):
    """What differs between the carriers: who may come in, as whom, and how much they may say."""

    def enter(self, hello: wire.Hello) -> Entry:
        """Say whose session it is; raises `Refused`."""

    def spend(self) -> float:
        """One more message: 0 where it is allowed, else the seconds to wait."""


class Closing(Exception):
    """The connection ends with this close code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class House(NamedTuple):
    """What all connections of a daemon share."""

    inbox: Inbox
    control: Control | None = None
    renderer: Renderer | None = None


async def serve(carrier: Carrier, door: Door, house: House) -> None:
    """Serve one client from its hello to its end; cancelling it closes the connection as shutting down."""
    code = 1000
    try:
        hello = await _greeting(carrier)
        entry = door.enter(hello)
        session = await house.inbox.session(entry.peer, entry.agent, operator=entry.operator)
        try:
            await _Conversation(carrier, door, house, entry, session).run(hello)
        finally:
            session.close()
    except Refused as refused:
        code = CLOSING.get(refused.code, 1008)
        await _last_word(carrier, refused)
    except Closing as closing:
        code = closing.code
    except ConnectionError:
        code = 1006
    except asyncio.CancelledError:
        code = 1001
        raise
    finally:
        await carrier.close(code)


async def _last_word(carrier: Carrier, refused: Refused) -> None:
    try:
        await carrier.send([wire.encode(_error(refused))])
    except ConnectionError:
        return


async def _greeting(carrier: Carrier) -> wire.Hello:
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            data = await carrier.receive()
    except TimeoutError:
        raise Refused("hello_expected", f"No hello came within {HELLO_SECONDS:g} seconds.") from None
    if data is None:
        raise Closing(1000)
    frame = wire.parse(data)
    if not isinstance(frame, wire.Hello):
        raise Refused("hello_expected", "The first frame must be a hello.")
    if frame.protocol != wire.PROTOCOL:
        raise Refused(
            "unsupported_protocol",
            f"The gateway speaks protocol {wire.PROTOCOL}, not {frame.protocol}: update or reload it.",
        )
    return frame


def _error(refused: Refused, id: str | None = None) -> wire.Error:
    return wire.Error(code=refused.code, message=refused.public, id=id, retry_after=refused.retry_after)


class _Conversation:
    """An open session on one connection: one coroutine reads, one writes."""

    def __init__(self, carrier: Carrier, door: Door, house: House, entry: Entry, session: Session) -> None:
        self._carrier = carrier
        self._door = door
        self._house = house
        self._entry = entry
        self._session = session
        self._outbox = Outbox()
        self._bad = 0

    async def run(self, hello: wire.Hello) -> None:
        renderer = self._house.renderer
        view: View = HtmlView(renderer) if hello.render == "html" and renderer else TextView()
        after, reset = await self._resumable(hello.after)
        watch = self._session.watch(self._outbox.put)
        tasks = [
            asyncio.create_task(self._write(view, watch, after, reset)),
            asyncio.create_task(self._read()),
            asyncio.create_task(self._overflow()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            watch.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _overflow(self) -> None:
        # The writer may be stuck in a client that does not read: somebody else has to notice.
        await self._outbox.overflow.wait()
        raise Closing(TOO_SLOW)

    async def _resumable(self, after: str | None) -> tuple[str | None, bool]:
        """The cursor to go on from, and whether the client's own was not of this session."""
        if after is None:
            return None, False
        try:
            await self._session.after(after, 1, None)
        except BadCursor:
            return None, True
        return after, False

    # -- towards the client ----------------------------------------------------------------------

    async def _write(self, view: View, watch: Watch, after: str | None, reset: bool) -> None:
        await self._send([await self._welcome(view, watch, reset)])
        await self._replay(view, after, watch.cursor)
        for asked in watch.running.approvals if watch.running else ():
            await self._send(await view.frames(asked))
        while True:
            items = await self._outbox.take(view.pause)
            frames: list[wire.ServerFrame] = []
            for item in items:
                frames += await self._frames(view, item)
            frames += await view.due()
            await self._send(frames)

    async def _welcome(self, view: View, watch: Watch, reset: bool) -> wire.Welcome:
        return wire.Welcome(
            session_id=self._session.id,
            session=self._entry.secret or msgspec.UNSET,
            agent=self._session.agent,
            model=self._session.model,
            turns=self._session.turns,
            running=await view.running(watch.running),
            reset=reset or msgspec.UNSET,
        )

    async def _replay(self, view: View, after: str | None, until: str | None) -> None:
        if until is None:
            return
        if after is None:
            records = await self._session.before(until, REPLAYED)
            await self._send([event_frame(await view.event(record)) for record in records])
            return
        while records := await self._session.after(after, _CHUNK, until):
            await self._send([event_frame(await view.event(record)) for record in records])
            after = records[-1].cursor

    async def _frames(self, view: View, item: Item) -> list[wire.ServerFrame]:
        match item:
            case wire.History():
                return [await self._page(view, item)]
            case wire.Ack() | wire.Notice() | wire.Error() | wire.Result():
                return [item]
        return await view.frames(item)  # type: ignore[arg-type] # what is left are updates: Item is a union of both

    async def _page(self, view: View, asked: wire.History) -> wire.ServerFrame:
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
            item = await view.event(record)
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
                await self._carrier.send(batch)
                batch, size = [], 0
        if batch:
            await self._carrier.send(batch)

    # -- from the client -------------------------------------------------------------------------

    async def _read(self) -> None:
        while (data := await self._carrier.receive()) is not None:
            await asyncio.sleep(0)  # many frames may be read at once: everybody else has a turn in between
            try:
                frame = wire.parse(data)
            except Refused as refused:
                self._bad += 1
                if refused.code in CLOSING:
                    raise
                self._outbox.put(_error(refused))
                if self._bad >= _BAD_IN_A_ROW:
                    await asyncio.sleep(0)  # the writer gets its turn: the client should learn why
                    raise Closing(1008) from None
                continue
            self._bad = 0
            await self._carry_out(frame)

    async def _carry_out(self, frame: wire.ClientFrame) -> None:
        id = getattr(frame, "id", None)
        try:
            match frame:
                case wire.Message():
                    self._spend()
                    self._receipt(frame.id, await self._session.submit(frame.id, frame.text))
                case wire.Retry():
                    self._spend()
                    self._receipt(frame.id, await self._session.retry(frame.id, frame.of))
                case wire.Stop():
                    self._session.stop()
                case wire.History():
                    self._outbox.put(frame)
                case wire.Approve():
                    await self._session.approve(frame.call_id, frame.allow)
                case wire.ControlFrame():
                    await self._control(frame)
                case wire.Hello():
                    raise Refused("bad_frame", "The session is open already; hello comes once.")
        except Refused as refused:
            self._outbox.put(_error(refused, id))

    def _spend(self) -> None:
        if wait := self._door.spend():
            raise Refused("rate_limited", "That was a lot at once. Please wait a moment.", retry_after=wait)

    def _receipt(self, id: str, receipt: Receipt | Answer) -> None:
        match receipt:
            case Receipt(cursor, queued):
                self._outbox.put(wire.Ack(id=id, cursor=cursor, queued=queued))
            case Answer(text):
                self._outbox.put(wire.Notice(text=text, id=id))

    async def _control(self, frame: wire.ControlFrame) -> None:
        if not self._entry.operator or self._house.control is None:
            raise Refused("not_allowed", "Only the gateway's operators may do this, on its Unix socket.")
        data = await self._house.control.control(frame.verb, frame.args)
        self._outbox.put(wire.Result(id=frame.id, ok=True, data=data))
