"""People who talk through the daemon's channels while it is killed, and who note all that they see.

Each says words that nobody else says; the model's answer to a message names its words once, at its very end.
So whoever sees a word in an answer saw the whole answer, and a word in a wrong place is a leak.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.fakes.daemon import Daemon
from tests.fakes.telegram_people import Person
from tests.fakes.telegram_server import TelegramServer

WORD = re.compile(r"\b[a-z]+\d+w\d+\b")
PATIENCE = 20.0  # seconds for one frame; a daemon that is down ends the connection long before
_PAUSE = 0.05
_AGAIN = 0.5  # seconds from a refusal to the next try


class Said(NamedTuple):
    """One message: its id, as its channel gives it, and its text."""

    id: str
    text: str


class Carrier(Protocol):
    """One connection: a frame out, a frame in; raises `Lost` where the daemon is gone."""

    async def send(self, frame: dict[str, Any]) -> None: ...

    async def receive(self) -> dict[str, Any]: ...

    async def close(self) -> None: ...


class Lost(Exception):
    """The connection is gone."""


class SocketCarrier:
    """The Unix socket, one JSON object a line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, daemon: Daemon, patience: float) -> SocketCarrier:
        try:
            return cls(*await asyncio.open_unix_connection(str(daemon.socket), limit=4 << 20))
        except OSError as error:
            raise Lost from error

    async def send(self, frame: dict[str, Any]) -> None:
        try:
            self._writer.write(json.dumps(frame).encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise Lost from error

    async def receive(self) -> dict[str, Any]:
        try:
            line = await self._reader.readuntil(b"\n")
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Lost from error
        frame: dict[str, Any] = json.loads(line)
        return frame

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class WebCarrier:
    """The WebSocket, by a client that is not ours."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, daemon: Daemon, patience: float) -> WebCarrier:
        if daemon.process is None or not daemon.port:
            raise Lost("the daemon of another trial may have its port by now")
        url = f"ws://127.0.0.1:{daemon.port}/ws"
        try:
            connecting = connect(url, proxy=None, max_size=1 << 21, open_timeout=patience, close_timeout=1)
            return cls(await connecting)
        except (OSError, InvalidHandshake, InvalidMessage, TimeoutError) as error:
            raise Lost from error

    async def send(self, frame: dict[str, Any]) -> None:
        try:
            await self._connection.send(json.dumps(frame))
        except ConnectionClosed as error:
            raise Lost from error

    async def receive(self) -> dict[str, Any]:
        try:
            frame: dict[str, Any] = json.loads(await self._connection.recv())
        except ConnectionClosed as error:
            raise Lost from error
        return frame

    async def close(self) -> None:
        await self._connection.close()


class Client:
    """Somebody at a terminal or in a browser: sends until it is acknowledged, reads until it is answered."""

    patience = PATIENCE

    def __init__(self, name: str, daemon: Daemon, *, web: bool) -> None:
        self.name = name
        self.said: list[Said] = []
        self.commands: set[str] = set()  # ids of messages that a notice answers
        self.acknowledged: dict[str, None] = {}  # in order
        self.closed: list[tuple[str, dict[str, Any]]] = []  # what each closing event answered, as it was seen
        self.cursors: list[str] = []  # of all events seen, over all connections
        self.errors: list[dict[str, Any]] = []  # frames
        self.welcomes = 0  # connections that came so far
        self.resets = 0
        self._daemon = daemon
        self._web = web
        self._secret = secrets.token_urlsafe(32)
        self._refused: set[str] = set()
        self._news = asyncio.Event()

    @property
    def session(self) -> str:
        """The session's id."""
        if self._web:
            return f"agent:main:webchat:session:{hashlib.sha256(self._secret.encode()).hexdigest()[:16]}"
        return f"agent:main:cli:{self.name}"

    def say(self, text: str, *, command: bool = False) -> str:
        """Put a message into the outbox; it is sent until it is acknowledged."""
        said = Said(f"{self.name}-{len(self.said)}", text)
        self.said.append(said)
        if command:
            self.commands.add(said.id)
        self._news.set()
        return said.id

    def owed(self) -> list[str]:
        """The ids of what was not acknowledged yet, or not answered."""
        answered = {id for id, _ in self.closed}
        return [
            said.id
            for said in self.said
            if said.id not in self.acknowledged or not (said.id in self.commands or said.id in answered)
        ]

    def place(self) -> Daemon:
        """Where to connect now."""
        return self._daemon

    async def live(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            try:
                carrier = await (WebCarrier if self._web else SocketCarrier).open(self.place(), self.patience)
            except Lost:
                await asyncio.sleep(_PAUSE)
                continue
            try:
                await self._converse(carrier)
            except Lost:
                await asyncio.sleep(_PAUSE)
            finally:
                await carrier.close()

    async def _converse(self, carrier: Carrier) -> None:
        hello: dict[str, Any] = {"type": "hello", "protocol": 1}
        hello["session"] = self._secret if self._web else self.name
        if self.cursors:
            hello["after"] = self.cursors[-1]
        await carrier.send(hello)
        welcome = await self._next(carrier)
        if welcome["type"] != "welcome":
            self._see(welcome)
            raise Lost
        self.welcomes += 1
        self.resets += bool(welcome.get("reset"))
        sending = asyncio.create_task(self._send(carrier))
        try:
            while True:
                self._see(await self._next(carrier))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _next(self, carrier: Carrier) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self.patience):
                return await carrier.receive()
        except TimeoutError:
            raise Lost from None

    async def _send(self, carrier: Carrier) -> None:
        sent: set[str] = set()
        while True:
            self._news.clear()
            for said in self.said:
                if said.id not in self.acknowledged and (said.id not in sent or said.id in self._refused):
                    self._refused.discard(said.id)
                    sent.add(said.id)
                    await carrier.send({"type": "message", "id": said.id, "text": said.text})
            await self._news.wait()

    def _see(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "error":
            self.errors.append(frame)
        match frame:
            case {"type": "ack" | "notice", "id": str(id)}:
                self.acknowledged[id] = None
            case {"type": "error", "id": str(id)}:  # not taken: it is sent again
                self._refused.add(id)
                asyncio.get_running_loop().call_later(_AGAIN, self._news.set)
            case {"type": "event", "cursor": str(cursor), "event": event}:
                self.cursors.append(cursor)
                self.closed += [(id, event) for id in event.get("answers") or ()]

    def answered(self) -> Iterator[tuple[str, str]]:
        """What was seen: a message's id, and a text that answers it."""
        for id, event in self.closed:
            yield id, str(event.get("content", ""))


class Chatter:
    """Somebody in Telegram."""

    def __init__(self, name: str, number: int, telegram: TelegramServer) -> None:
        self.name = name
        self.person: Person = telegram.user(number, name)
        self.said: list[Said] = []
        self.session = f"agent:main:telegram:user:{number}"

    def say(self, text: str) -> None:
        message = self.person.says(text)
        self.said.append(Said(f"{self.person.chat.id}_{message.id}", text))

    def sends_album(self, count: int, caption: str) -> None:
        for message in self.person.sends_album([b"\xff\xd8\xff photo"] * count, caption):
            self.said.append(Said(f"{self.person.chat.id}_{message.id}", caption))
            caption = ""

    def shown(self) -> list[str]:
        """The words that the bot's messages hold now, in the order of the chat."""
        return [word for text in self.person.chat.texts() for word in WORD.findall(text)]
