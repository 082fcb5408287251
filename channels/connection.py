"""One client's conversation over the frames of `wire`, whatever carries them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from channels import wire
from channels.base import Answer, Control, Inbox, Receipt, Session
from channels.errors import ErrorCode, Refused
from channels.sender import Sender, TooSlow
from channels.turnstile import Turnstile
from channels.view import HtmlView, Renderer, TextView, View
from session.errors import BadCursor
from session.ids import AgentId, Peer

HELLO_SECONDS = 10.0
_LAST_WORD = 1.0  # seconds for a client to take it
_BAD_IN_A_ROW = 3
_TEXT = TextView()  # it remembers nothing: one is enough for all

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


@dataclass(frozen=True)
class House:
    """What all connections of a daemon share."""

    inbox: Inbox
    control: Control | None = None
    renderer: Renderer | None = None
    exit: Turnstile = field(default_factory=Turnstile)


async def serve(carrier: Carrier, door: Door, house: House) -> None:
    """Serve one client from its hello to its end; cancelling it closes the connection as shutting down."""
    code = 1000
    try:
        await (await _opened(carrier, door, house)).read(house.exit)
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
        async with asyncio.timeout(_LAST_WORD):
            await carrier.send([wire.encode(_error(refused))])
    except (TimeoutError, ConnectionError):
        return  # whoever reads nothing does not learn why


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


async def _opened(carrier: Carrier, door: Door, house: House) -> _Conversation:
    """Let the client in. What only its hello is good for is let go of when this returns."""
    hello = await _greeting(carrier)
    entry = door.enter(hello)
    session = await house.inbox.session(entry.peer, entry.agent, operator=entry.operator)
    try:
        after, reset = await _resumable(session, hello.after)
        conversation = _Conversation(carrier, door, session, house.control if entry.operator else None)
        renderer = house.renderer if hello.render == "html" else None
        view: View = HtmlView(renderer) if renderer else _TEXT
        conversation.begin(view, after, _welcome(entry, session, reset))
    except BaseException:
        session.close()
        raise
    return conversation


async def _resumable(session: Session, after: str | None) -> tuple[str | None, bool]:
    """The cursor to go on from, and whether the client's own was not of this session."""
    if after is None:
        return None, False
    try:
        await session.after(after, 1, None)
    except BadCursor:
        return None, True
    return after, False


def _welcome(entry: Entry, session: Session, reset: bool) -> wire.Welcome:
    return wire.Welcome(
        session_id=session.id,
        session=entry.secret or msgspec.UNSET,
        agent=session.agent,
        model=session.model,
        turns=session.turns,
        running=None,
        reset=reset or msgspec.UNSET,
    )


class _Conversation:
    """An open session on one connection: it reads in the task that serves the client, its sender writes."""

    __slots__ = (
        "_bad",
        "_carrier",
        "_controls",
        "_door",
        "_fault",
        "_reading",
        "_sender",
        "_session",
        "_watch",
    )

    def __init__(self, carrier: Carrier, door: Door, session: Session, controls: Control | None) -> None:
        self._carrier = carrier
        self._door = door
        self._session = session
        self._controls = controls
        self._bad = 0  # frames, one after the other
        self._reading = asyncio.current_task()  # None when the conversation is over
        self._fault: BaseException | None = None  # why it cannot go on

    def begin(self, view: View, after: str | None, welcome: wire.Welcome) -> None:
        """Send the welcome, and from now on whatever happens in the session."""
        self._sender = Sender(self._carrier, view, self._session, self._broken)
        self._watch = self._session.watch(self._sender.put)
        self._sender.begin(welcome, self._watch, after)

    def _broken(self, fault: BaseException) -> None:
        """The sender cannot go on: nor can the reader."""
        if self._reading is not None and self._fault is None:
            self._fault = Closing(TOO_SLOW) if isinstance(fault, TooSlow) else fault
            self._reading.cancel()

    async def read(self, exit: Turnstile) -> None:
        """Carry out what the client says until it is gone; raises `Refused`, `Closing`, `ConnectionError`."""
        try:
            while (data := await self._carrier.receive()) is not None:
                await asyncio.sleep(0)  # many frames may be read at once: everybody has a turn in between
                await self._take(data)
            await exit.passed()  # many may be gone at once
        except asyncio.CancelledError:
            if self._fault is None or self._reading is None or self._reading.uncancel():
                raise
            raise self._fault from None
        finally:
            self._reading = None
            self._watch.close()
            self._session.close()
            await self._sender.close()
            del self._watch, self._sender  # they lead back here: the collector would have to find them

    async def _take(self, data: bytes | str) -> None:
        try:
            frame = wire.parse(data)
        except Refused as refused:
            self._bad += 1
            if refused.code in CLOSING:
                raise
            self._sender.put(_error(refused))
            if self._bad >= _BAD_IN_A_ROW:
                await asyncio.sleep(0)  # the sender gets its turn: the client should learn why
                raise Closing(1008) from None
        else:
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
                    self._sender.put(frame)
                case wire.Approve():
                    await self._session.approve(frame.call_id, frame.allow)
                case wire.ControlFrame():
                    await self._control(frame)
                case wire.Hello():
                    raise Refused("bad_frame", "The session is open already; hello comes once.")
        except Refused as refused:
            self._sender.put(_error(refused, id))

    def _spend(self) -> None:
        if wait := self._door.spend():
            raise Refused("rate_limited", "That was a lot at once. Please wait a moment.", retry_after=wait)

    def _receipt(self, id: str, receipt: Receipt | Answer) -> None:
        match receipt:
            case Receipt(cursor, queued):
                self._sender.put(wire.Ack(id=id, cursor=cursor, queued=queued))
            case Answer(text):
                self._sender.put(wire.Notice(text=text, id=id))

    async def _control(self, frame: wire.ControlFrame) -> None:
        if self._controls is None:
            raise Refused("not_allowed", "Only the gateway's operators may do this, on its Unix socket.")
        data = await self._controls.control(frame.verb, frame.args)
        self._sender.put(wire.Result(id=frame.id, ok=True, data=data))
