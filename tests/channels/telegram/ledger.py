"""What the tests of Telegram's incoming half share: an inbox in memory, and a channel to break off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from channels.base import Answer, Delivery, InboundMessage, Receipt, Sent, Update
from channels.errors import Refused
from channels.telegram.channel import TelegramChannel
from channels.telegram.journal import Journal
from channels.telegram.pairing import FILE, Pairing
from channels.telegram.settings import Settings
from session.events import Event, Record, System, User, encode
from session.ids import AgentId, Peer, SessionId
from tests.channels.telegram.stage import FakeWatch, NotOfTelegram, Time, until
from tests.fakes.telegram_server import TelegramServer

COMMANDS = (("new", "begin a new conversation"), ("help", "list the commands"))


class Transcript(NotOfTelegram):
    """A `channels.base.Session` on a list of events."""

    agent = AgentId("main")
    model = "fake-1"
    turns = 0

    def __init__(self, id: SessionId, events: list[Event]) -> None:
        self.id = id
        self.events = events

    @property
    def address(self) -> str | None:
        moved = [event.chat for event in self.events if isinstance(event, System) and event.name == "address"]
        return moved[-1] if moved else None

    async def record(self, events: list[Event]) -> None:
        self.events.extend(events)

    async def before(self, cursor: str | None, limit: int) -> list[Record]:
        return [Record(str(n), event, encode(event)[:-1]) for n, event in enumerate(self.events)][-limit:]

    def close(self) -> None:
        pass

    # -- not for this half -----------------------------------------------------------------------

    def watch(self, update: Callable[[Update], None]) -> FakeWatch:
        raise NotImplementedError

    def undelivered(self) -> list[Delivery]:
        raise NotImplementedError

    def sent(self, turn: str) -> list[Sent]:
        raise NotImplementedError


class Ledger:
    """A `channels.base.Inbox` that remembers, also what it was asked twice.

    `refuse` says of a message why it is not stored; `store` is awaited before and after it is.
    """

    def __init__(self) -> None:
        self.transcripts: dict[str, list[Event]] = {}
        self.messages: list[InboundMessage] = []  # each stored one, once
        self.repeats = 0
        self.at_once = 0  # the most messages that were being stored side by side
        self.refuse: Callable[[InboundMessage], Exception | None] = lambda _: None
        self.step: Callable[[], None] = lambda: None
        self.gate = asyncio.Event()
        self.gate.set()
        self._storing = 0

    async def session(
        self, peer: Peer, agent: AgentId | None = None, *, operator: bool = False
    ) -> Transcript:
        events = self.transcripts.setdefault(peer.peer_id, [])
        return Transcript(SessionId(f"agent:main:telegram:{peer.peer_id}"), events)

    async def submit(self, message: InboundMessage) -> Receipt | Answer:
        if refusal := self.refuse(message):
            raise refusal
        self._storing += 1
        self.at_once = max(self.at_once, self._storing)
        try:
            self.step()
            await self.gate.wait()
            await asyncio.sleep(0)
            return self._stored(message)
        finally:
            self._storing -= 1

    def _stored(self, message: InboundMessage) -> Receipt | Answer:
        events = self.transcripts.setdefault(message.peer.peer_id, [])
        known = [event for event in events if isinstance(event, User | System) and event.id == message.id]
        name = message.text.removeprefix("/").split(" ")[0]
        if message.text.startswith("/") and name in dict(COMMANDS):
            if not known:
                events.append(System(name="reset", id=message.id))
            return Answer(f"{name} was carried out{' already' if known else ''}")
        if known:
            self.repeats += 1
            if isinstance(known[0], User) and known[0].content != message.text:
                raise Refused("id_conflict", "another text")
        else:
            events.append(User(content=message.text, id=message.id))
            self.messages.append(message)
        self.step()
        return Receipt("1", 0)

    async def record(self, session: SessionId, events: list[Event]) -> None:
        raise NotImplementedError

    async def delete(self, peer: Peer, agent: AgentId | None = None) -> bool:
        raise NotImplementedError

    # -- looking at it ---------------------------------------------------------------------------

    def texts(self, peer: str | None = None) -> list[str]:
        """The stored messages of one peer, or of all."""
        return [message.text for message in self.messages if peer in (None, message.peer.peer_id)]

    def systems(self, peer: str, name: str) -> list[System]:
        events = self.transcripts.get(peer, [])
        return [event for event in events if isinstance(event, System) and event.name == name]


class House:
    """A channel on the fake server, to start and stop again and again: one ledger, one data directory."""

    def __init__(self, server: TelegramServer, time: Time, folder: Path, **settings: Any) -> None:
        self.server = server
        self.time = time
        self.folder = folder
        self.ledger = Ledger()
        self.readied = 0
        self.pairing = Pairing(Journal(folder / FILE), time)
        given = {"allow": ("7", "8", "9", "-100")} | settings
        self.settings = Settings(bot_token=server.token, api_url=server.api_url, **given)
        self.channel = self._made()
        self.task: asyncio.Task[None] | None = None

    def _made(self) -> TelegramChannel:
        return TelegramChannel(
            self.settings,
            self.ledger,
            self.folder,
            self.pairing,
            COMMANDS,
            clock=self.time,
            sleep=self.time.sleep,
            long_poll=0.3,
        )

    async def start(self, *, wait: bool = True) -> None:
        """A new channel, as after a restart of the process."""
        self.pairing = Pairing(Journal(self.folder / FILE), self.time)
        self.channel, before = self._made(), self.readied
        self.task = asyncio.create_task(self.channel.run(self._ready))
        if wait:
            await self.until(lambda: self.readied > before)

    def _ready(self) -> None:
        self.readied += 1

    def break_off(self) -> None:
        assert self.task is not None
        self.task.cancel()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})
            if not self.task.cancelled() and (error := self.task.exception()):
                raise error

    async def until(self, condition: Callable[[], object]) -> None:
        """Time goes on where nothing else does."""
        await until(self.server, self.time, condition)

    async def settled(self) -> None:
        """Everything that was sent so far is confirmed."""
        await self.until(lambda: not self.server.updates.pending)
