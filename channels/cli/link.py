"""A connection to a gateway that comes back by itself, and the messages that it brings there exactly once."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, Protocol, cast

import msgspec

from channels import wire
from channels.cli.carrier import (
    NO_PERMISSION,
    PROTOCOL,
    TEMPORARY,
    UNAVAILABLE,
    CannotChat,
    Carrier,
    Dropped,
)
from channels.errors import ErrorCode

MAX_WAITING = 20  # messages that no gateway has acknowledged yet; as many as a session may have waiting

_WELCOME_WITHIN = 30.0  # seconds; a gateway that starts behind its socket may take a few
_FLUSH_WITHIN = 2.0
_SETTLE_WITHIN = 1.0
_ASK_AGAIN_AFTER = 1.0
# Sent again by the link itself; any other error about a message is final.
_PASSING = frozenset({"rate_limited", "shutting_down"})
# Told without the message's id: it was never read, so it can only be about the one that is on its way.
_UNREAD = frozenset({"bad_json", "bad_utf8", "bad_frame", "frame_too_large"})
_REFUSALS = {"unauthorized": NO_PERMISSION, "not_allowed": NO_PERMISSION, "unsupported_protocol": PROTOCOL}
# Control never waits behind messages that wait.
_URGENT = re.compile(r"/(stop|status|help)\s*\Z")


class Received(NamedTuple):
    """One frame: as it came, as it reads (None: of a kind this client does not know), and what it settled."""

    raw: bytes
    frame: wire.ServerFrame | None
    settled: wire.Message | None = None


class Lost(NamedTuple):
    """The connection is gone; the link is already on its way to the next."""

    reason: str


class Pace(NamedTuple):
    """How long to wait before connecting again, in seconds: doubled each time, with jitter."""

    first: float = 0.1
    most: float = 5.0

    def delay(self, failures: int) -> float:
        """The wait after so many failures in a row."""
        return float(min(self.most, self.first * 2 ** min(failures, 16)) * random.uniform(0.6, 1.0))


class Memory(Protocol):
    """Where a session's secret is kept."""

    def read(self) -> str:
        """The secret; the first to ask makes it. Raises `CannotChat`."""


class Link:
    """One session at one gateway; `listen` is its life, everything else may be called while that runs."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[Carrier]],
        hello: wire.Hello,
        *,
        memory: Memory | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._dial = dial
        self._hello = hello
        self._memory = memory
        self._pace = pace or Pace()
        self._cursor: str | None = None  # of the last event heard
        self._known = False  # a welcome was heard once: from then on no failure to connect is final
        self._stop_wanted = False  # asked for while away
        self._sent: set[str] = set()  # ids on their way over this connection
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._all_settled = asyncio.Event()  # nothing is in `unsettled`
        self._all_settled.set()
        self.up = False  # between a welcome and the loss of its connection
        self.unsettled: dict[str, wire.Message] = {}  # in the order they were said

    # -- what a person does ----------------------------------------------------------------------

    def say(self, text: str) -> str:
        """Send a message, now or after the next welcome; return its id. The caller minds `MAX_WAITING`."""
        message = wire.Message(id=os.urandom(12).hex(), text=text)
        self.unsettled[message.id] = message
        self._all_settled.clear()
        self._push()
        return message.id

    def stop(self) -> None:
        """Stop the running turn, now or after the next welcome."""
        if not self.send(wire.Stop()):
            self._stop_wanted = True

    def send(self, frame: wire.ClientFrame) -> bool:
        """Send a frame that is not worth keeping; False while there is no connection."""
        if self.up:
            self._outgoing.put_nowait(wire.encode(frame))
        return self.up

    async def flush(self) -> None:
        """Wait until what was sent has left, for two seconds at most."""
        try:
            async with asyncio.timeout(_FLUSH_WITHIN):
                await self._outgoing.join()
        except TimeoutError:
            pass

    async def settle(self) -> None:
        """Wait until the gateway has spoken about every message, for a second at most."""
        try:
            async with asyncio.timeout(_SETTLE_WITHIN):
                if self.up:
                    await self._outgoing.join()
                await self._all_settled.wait()
        except TimeoutError:
            pass

    def was_sent(self, id: str) -> bool:
        """Whether the message was sent over the latest connection, so that it may have arrived."""
        return id in self._sent

    # -- the connection --------------------------------------------------------------------------

    async def listen(self) -> AsyncGenerator[Received | Lost]:
        """Connect, and again whenever the connection is lost; yield what is heard.

        Each event comes once, over all connections. Raises `CannotChat` if the first connection fails, or
        any is refused.
        """
        failures = 0
        while True:
            try:
                carrier = await self._dial()
            except CannotChat as error:
                if not self._known:
                    raise
                lost, wait = Lost(error.public), 0.0
            else:
                since = asyncio.get_running_loop().time()
                try:
                    async with aclosing(self._converse(carrier)) as heard:
                        async for received in heard:
                            yield received
                except Dropped as error:
                    lost, wait = Lost(str(error)), error.after
                finally:
                    self.up = False
                    await carrier.close()
                if asyncio.get_running_loop().time() - since > self._pace.most:
                    failures = 0
            yield lost
            await asyncio.sleep(max(wait, self._pace.delay(failures)))
            failures += 1

    async def _converse(self, carrier: Carrier) -> AsyncGenerator[Received]:
        """One connection, from hello to its loss (`Dropped`)."""
        self._outgoing = asyncio.Queue()
        sender = asyncio.create_task(_send_all(carrier, self._outgoing))
        try:
            self._outgoing.put_nowait(wire.encode(self._greeting()))
            received = await self._first_frame(carrier)
            problem = self._open(received.frame)
            yield received
            if problem:
                raise problem
            while True:
                raw = await carrier.receive()
                yield self._hear(raw)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _greeting(self) -> wire.Hello:
        secret = self._memory.read() if self._memory else self._hello.session
        return msgspec.structs.replace(self._hello, session=secret, after=self._cursor)

    async def _first_frame(self, carrier: Carrier) -> Received:
        try:
            async with asyncio.timeout(_WELCOME_WITHIN):
                raw = await carrier.receive()
        except TimeoutError as error:
            raise self._no_welcome("It accepts connections and does not answer.") from error
        except Dropped as error:
            raise self._no_welcome("The gateway closed the connection before it answered.") from error
        return Received(raw, _decoded(raw))

    def _no_welcome(self, reason: str) -> CannotChat | Dropped:
        return Dropped(reason) if self._known else CannotChat(reason)

    def _open(self, frame: wire.ServerFrame | None) -> CannotChat | Dropped | None:
        """Take the first frame; return why there is no conversation."""
        match frame:
            case wire.Welcome():
                self._begin(frame)
                return None
            case wire.Error(code=code, message=message) if code in _REFUSALS:
                return CannotChat(message + _ADVICE.get(code, ""), _REFUSALS[code])
            case wire.Error(code=code, message=message, retry_after=after):
                if self._known or code in _PASSING:
                    return Dropped(message, after or 0.0)
                return CannotChat(message, TEMPORARY if code == "storage_unavailable" else UNAVAILABLE)
        return CannotChat(
            "What answers there is no gateway, or one that this client does not know.", PROTOCOL
        )

    def _begin(self, welcome: wire.Welcome) -> None:
        """After a welcome: say again what nobody acknowledged, oldest first."""
        if welcome.reset is True:
            self._cursor = None
        self._known = self.up = True
        self._sent.clear()
        if self._stop_wanted:
            self._stop_wanted = False
            self.send(wire.Stop())
        self._push()

    def _push(self) -> None:
        """Send what waits, one at a time: a message is never overtaken by a later one, except by control."""
        waiting = False
        for message in self.unsettled.values():
            urgent = _URGENT.match(message.text) is not None
            if message.id not in self._sent and (urgent or not waiting) and self.send(message):
                self._sent.add(message.id)
            waiting = waiting or not urgent

    def _hear(self, raw: bytes) -> Received:
        frame = _decoded(raw)
        if isinstance(frame, wire.EventFrame):
            self._cursor = frame.cursor
        settled = self.unsettled.pop(self._settles(frame) or "", None)
        if settled:
            self._push()
        if not self.unsettled:
            self._all_settled.set()
        return Received(raw, frame, settled)

    def _settles(self, frame: wire.ServerFrame | None) -> str | None:
        """The id of the message that the frame is the last word on."""
        match frame:
            case wire.Ack(id=id) | wire.Notice(id=id):
                return id
            case wire.Error(code=code, id=str(id), retry_after=after) if code in _PASSING:
                asyncio.get_running_loop().call_later(after or _ASK_AGAIN_AFTER, self._again, id)
            case wire.Error(code=code, id=None) if code in _UNREAD:
                return next((id for id in self.unsettled if id in self._sent), None)
            case wire.Error(id=id):
                return id
        return None

    def _again(self, id: str) -> None:
        self._sent.discard(id)
        self._push()


_ADVICE = {
    "unauthorized": " The gateway's token is given with --token-file.",
    "unsupported_protocol": f" This client speaks protocol {wire.PROTOCOL}: install the gateway's version.",
}


async def _send_all(carrier: Carrier, outgoing: asyncio.Queue[bytes]) -> None:
    """Send until the connection breaks, which `receive` reports."""
    while True:
        frame = await outgoing.get()
        try:
            await carrier.send(frame)
        except Dropped:
            return
        finally:
            outgoing.task_done()


class _AnyError(msgspec.Struct, tag="error", tag_field="type"):
    message: str
    code: str = "bad_frame"
    id: str | None = None


def _decoded(raw: bytes) -> wire.ServerFrame | None:
    """The frame; None where a newer gateway says something that this client does not know."""
    try:
        return wire.decode(raw)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
        pass
    try:  # an error with a code of tomorrow still has its sentence
        error = msgspec.json.decode(raw, type=_AnyError)
    except (msgspec.DecodeError, ValueError):
        return None
    return wire.Error(code=cast(ErrorCode, error.code), message=error.message, id=error.id)
