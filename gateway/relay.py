"""Live text across nodes: from the one that runs a session's turns to those where somebody watches it.

What is stored is read from the store; only what is not travels here, in the order of the owner's feed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from channels.base import Approval, Delta, Done, Running, Started, Stored, ToolActivity, Update
from gateway.lane import Lane
from session.events import Assistant, System
from session.ids import SessionId

_INTERVAL = 0.1  # seconds between two deltas of a turn


class UpTo(msgspec.Struct, frozen=True, tag=True):
    """All up to this cursor is stored."""

    cursor: str | None


class Said(msgspec.Struct, frozen=True, tag=True):
    """More of the reply; `place`: behind so many stored messages of its turn."""

    turn: str
    text: str
    place: int


class Snapshot(msgspec.Struct, frozen=True, tag=True):
    """How it stands: what is stored, and the turn in progress with what it has said behind `place`."""

    cursor: str | None
    started: Started | None = None
    running: Running | None = None
    place: int = 0


Item = Started | Said | ToolActivity | Approval | UpTo | Snapshot


class Relay:
    """Tells the nodes that watch a session what its feed says here, at the owner.

    `send` hands items of the session to a node that watches under a key.
    """

    def __init__(self, lane: Lane, send: Callable[[SessionId, int, str, list[Item] | None], None]) -> None:
        self.lane = lane
        self._send = send
        self._watchers: dict[int, str] = {}  # the key, by node
        self._items: list[Item] = []  # not sent yet
        self._said: list[str] = []  # of the turn, not sent yet
        self._turn = ""
        self._due: asyncio.Handle | None = None
        self._watch = lane.feed.watch(self._hear, None)

    def add(self, node: int, key: str) -> None:
        """A node watches from now on: it gets a snapshot, and then what comes."""
        self._flush()
        self._watchers[node] = key
        self._send(self.lane.session, node, key, [self._snapshot()])

    def remove(self, node: int, key: str | None = None) -> None:
        """It watches no longer, by this key or (None) at all."""
        if key is None or self._watchers.get(node) == key:
            self._watchers.pop(node, None)

    def anew(self) -> None:
        """Something of what was sent may be lost, or holds no longer: begin with another snapshot."""
        self._items.clear()
        self._said.clear()
        for node, key in self._watchers.items():
            self._send(self.lane.session, node, key, [self._snapshot()])

    def close(self) -> None:
        """Send nothing more but that whoever watches has to ask anew."""
        self._watch.close()
        for node, key in self._watchers.items():
            self._send(self.lane.session, node, key, None)
        self._watchers.clear()
        if self._due is not None:
            self._due.cancel()

    def _snapshot(self) -> Snapshot:
        feed = self.lane.feed
        turn = feed.started.turn if feed.started else ""
        return Snapshot(self.lane.conversation.cursor, feed.started, feed.running, _place(self.lane, turn))

    def _hear(self, update: Update) -> None:
        match update:
            case Delta(turn, text):
                self._turn = turn
                self._said.append(text)
                self._soon(_INTERVAL)
                return
            case Stored(record):
                if isinstance(record.event, Assistant):
                    self._said.clear()  # the event has it all
                if self._items and isinstance(self._items[-1], UpTo):
                    self._items.pop()
                self._items.append(UpTo(record.cursor))
            case Started():
                self._said.clear()
                self._items.append(update)
            case ToolActivity() | Approval():
                self._take_said()
                self._items.append(update)
            case Done():
                return  # its event says so
        self._soon(0.0)

    def _soon(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._due is not None and seconds == 0.0:
            self._due.cancel()
            self._due = None
        if self._due is None:
            self._due = loop.call_later(seconds, self._flush) if seconds else loop.call_soon(self._flush)

    def _take_said(self) -> None:
        if self._said:
            self._items.append(Said(self._turn, "".join(self._said), _place(self.lane, self._turn)))
            self._said = []

    def _flush(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._take_said()
        items, self._items = self._items, []
        if items:
            for node, key in self._watchers.items():
                self._send(self.lane.session, node, key, items)


class Mirror:
    """Shows at another node what its owner's feed says, in step with what is stored.

    An append of this node's own may bring what is stored earlier than the owner's word of it: so everything
    is looked at against what is known here, and what is late is passed over.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.owner: int | None = None  # whom we asked last
        self.key = ""  # under which we watch; what comes under another one is of an earlier owner
        self.ready = asyncio.Event()  # set when the snapshot was shown
        self._answered: set[str] = set()  # calls of the running turn
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._watch = lane.feed.watch(self._seen, None)
        self._task = asyncio.create_task(self._work(), name=f"mirror {lane.session}")

    def begin(self, key: str) -> None:
        """Watch under this key from now on; a snapshot comes first."""
        self.key = key
        self.ready.clear()
        self._items = asyncio.Queue()
        self._task.cancel()
        self._task = asyncio.create_task(self._work(), name=f"mirror {self.lane.session}")

    def hear(self, key: str, items: list[Item]) -> None:
        """The owner's word."""
        if key == self.key:
            for item in items:
                self._items.put_nowait(item)

    def close(self) -> None:
        """Show nothing more."""
        self._watch.close()
        self._task.cancel()

    def _seen(self, update: Update) -> None:
        match update:
            case Stored(record) if isinstance(record.event, System):
                if record.event.name == "started":
                    self._answered.clear()
                elif record.event.name == "approval":
                    self._answered.add(record.event.call_id or "")

    async def _work(self) -> None:
        items = self._items
        while True:
            await self._take(await items.get())

    async def _take(self, item: Item) -> None:
        lane = self.lane
        match item:
            case Snapshot():
                await lane.journal.catch_up()
                await lane.fresh()
                self._adopt(item)
                self.ready.set()
            case UpTo(cursor):
                if lane.conversation.cursor != cursor:
                    await lane.journal.catch_up()
            case Started(turn, _, attempt):
                running = lane.conversation.running
                if running and (running.turn, running.number) == (turn, attempt):
                    lane.feed.publish(item)
            case Said(turn, text, place):
                if self._shows(turn) and place == _place(lane, turn):
                    lane.feed.publish(Delta(turn, text))
            case ToolActivity(turn):
                if self._shows(turn):
                    lane.feed.publish(item)
            case Approval(turn):
                self._ask(turn, item)

    def _shows(self, turn: str) -> bool:
        running, started = self.lane.conversation.running, self.lane.feed.started
        return running is not None and started is not None and running.turn == turn == started.turn

    def _ask(self, turn: str, asked: Approval) -> None:
        if self._shows(turn) and asked.call_id not in self._answered:
            self.lane.feed.publish(asked)

    def _adopt(self, snapshot: Snapshot) -> None:
        feed, begun = self.lane.feed, self.lane.conversation.running
        mine, running, started = feed.running, snapshot.running, snapshot.started
        if mine and begun is None:
            feed.publish(Done(mine.turn, "stopped", self.lane.conversation.cursor or ""))
        if begun is None or running is None or started is None or begun.turn != running.turn:
            return
        known = mine.text if mine and feed.started == started else None
        if known is None or not running.text.startswith(known):
            feed.publish(started)
            known = ""
        if (rest := running.text[len(known) :]) and snapshot.place == _place(self.lane, running.turn):
            feed.publish(Delta(running.turn, rest))
        shown = {asked.call_id for asked in feed.running.approvals} if feed.running else set()
        for asked in running.approvals:
            if asked.call_id not in shown:
                self._ask(running.turn, asked)


def _place(lane: Lane, turn: str) -> int:
    """How many messages of the running turn are stored; -1 where it does not run."""
    try:
        exchange = lane.conversation.window.of(turn)
    except KeyError:
        return -1
    return sum(isinstance(step, Assistant) for step in exchange.steps)
