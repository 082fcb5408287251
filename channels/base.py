"""The whole contract between the channels and the gateway.

A channel turns what it hears into `Inbox` calls and what it is told (`Update`) into its own form. The
gateway knows nothing of carriers, a channel knows nothing of files, models and lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from session.events import Event, Record
from session.ids import AgentId, MessageId, Peer, Provider, SessionId


class InboundMessage(msgspec.Struct, frozen=True):
    """One message as every channel hands it in; `agent` only where the peer asked for one.

    `hold`: seconds of quiet to wait for before it is answered, so that what belongs together is answered
    together. `insistent`: its sender cannot be told to try again; where too many messages wait, it is stored
    and closed at once.
    """

    peer: Peer
    id: MessageId
    text: str
    agent: AgentId | None = None
    hold: float = 0.0
    insistent: bool = False


class Receipt(msgspec.Struct, frozen=True, tag=True):
    """The message is on disk. `cursor`: the place after it; `queued`: how many turns are ahead."""

    cursor: str
    queued: int


class Answer(msgspec.Struct, frozen=True, tag=True):
    """What a command says at once; stands for the receipt."""

    text: str


class Started(msgspec.Struct, frozen=True, tag=True):
    """A turn began on these messages; `attempt` above 1: clear what was shown of it."""

    turn: str
    answers: tuple[str, ...]
    attempt: int


class Delta(msgspec.Struct, frozen=True, tag=True):
    """More of the reply."""

    turn: str
    text: str


class ToolActivity(msgspec.Struct, frozen=True, tag=True):
    """A tool of the turn changed its state."""

    turn: str
    call_id: str
    name: str
    state: Literal["started", "finished", "failed"]


class Approval(msgspec.Struct, frozen=True, tag=True):
    """The person is asked whether a tool call may run; `expires` is a time as transcripts write it.

    `number`: from 1 within the turn, for people who answer in words. An `approval` event with its `call_id`
    says that it was answered, or has expired.
    """

    turn: str
    call_id: str
    name: str
    args: Any
    expires: str
    number: int = 1


class Stored(msgspec.Struct, frozen=True, tag=True):
    """One more event is in the transcript."""

    record: Record


class Done(msgspec.Struct, frozen=True, tag=True):
    """The turn is over; its closing event came before."""

    turn: str
    outcome: Literal["completed", "stopped", "failed"]
    cursor: str


Update = Started | Delta | ToolActivity | Approval | Stored | Done


class Running(msgspec.Struct, frozen=True):
    """A turn in progress, what it has said since its last stored event, and what it asks of the person."""

    turn: str
    answers: tuple[str, ...]
    text: str
    approvals: tuple[Approval, ...] = ()


class Sent(msgspec.Struct, frozen=True):
    """One message of a reply that a push channel has sent: part `part` (from 0), and its id where it is."""

    part: int
    message_id: int
    chat: str


class Delivery(msgspec.Struct, frozen=True):
    """A reply that a push channel has not brought yet, or not wholly.

    `texts`: what the turn said, in order, the closing text last. `finish`: how it ended (`failed` where a
    `turn_failed` closed it). `failures`: how often a delivery of it failed for good.
    """

    turn: str
    answers: tuple[str, ...]
    texts: tuple[str, ...]
    finish: str
    sent: tuple[Sent, ...] = ()
    failures: int = 0


class Watch(Protocol):
    """A view of a session from one tick on: `running` and `cursor` are of that tick, updates come after."""

    running: Running | None
    cursor: str | None

    def close(self) -> None:
        """Stop the updates; calling it again does nothing."""


class Session(Protocol):
    """One session as a channel holds it; it stays in memory until `close`."""

    @property
    def id(self) -> SessionId:
        """The session's id."""

    @property
    def agent(self) -> AgentId:
        """Who answers."""

    @property
    def model(self) -> str:
        """The model's name, as people see it."""

    @property
    def turns(self) -> int:
        """How many earlier user and assistant messages the model sees."""

    def watch(self, update: Callable[[Update], None]) -> Watch:
        """Call `update` for everything from now on; it must return at once."""

    async def submit(self, id: str, text: str) -> Receipt | Answer:
        """Store a message, or carry out the command that it is; raises `Refused`."""

    async def retry(self, id: str, of: str) -> Receipt:
        """Ask the text of message `of` again, as message `id`; raises `Refused`."""

    def stop(self) -> bool:
        """Stop the running turn; False where there is none."""

    async def approve(self, call_id: str, allow: bool) -> None:
        """The person's word on a tool call that waits for it; raises `Refused` where none does."""

    def undelivered(self) -> list[Delivery]:
        """Closed turns of a push channel that have no `delivered`, oldest first."""

    def sent(self, turn: str) -> list[Sent]:
        """What was sent of a turn that is not closed yet, by an earlier attempt at it."""

    @property
    def address(self) -> str | None:
        """Where the peer has moved to (the last `address` event), or None."""

    async def record(self, events: list[Event]) -> None:
        """Store what the channel must remember (`sent`, `delivered`); never waits for a running turn.

        Raises `Refused`; a courier's session `LeaseLost` where another gateway brings its replies.
        """

    async def after(self, cursor: str | None, limit: int, until: str | None) -> list[Record]:
        """Events behind the cursor, none behind `until`; raises `BadCursor`."""

    async def before(self, cursor: str | None, limit: int) -> list[Record]:
        """Events up to the one that ends at the cursor, oldest first; raises `BadCursor`."""

    def close(self) -> None:
        """Let go of the session; calling it again does nothing."""


class Inbox(Protocol):
    """The way in."""

    async def session(self, peer: Peer, agent: AgentId | None = None, *, operator: bool = False) -> Session:
        """Open the peer's session, for an operator of the gateway or anybody else; raises `Refused`."""

    async def submit(self, message: InboundMessage) -> Receipt | Answer:
        """Store a message without holding its session; raises `Refused`."""

    async def delete(self, peer: Peer, agent: AgentId | None = None) -> bool:
        """Remove the peer's session for good; False where there is none. Raises `Refused`."""


class Courier(Protocol):
    """A push channel: it brings replies to its people by itself, whoever asked and whenever it starts."""

    provider: Provider

    def attend(self, session: Session) -> None:
        """One of its sessions has come to memory: watch it, and bring what is undelivered. Returns at once.

        The session may leave memory again while nothing is open in it, or another gateway may have to bring
        its replies; `dismiss` says so.
        """

    def dismiss(self, session: SessionId) -> None:
        """Another gateway brings its replies from now on, or none is undelivered: stop at once."""


class Control(Protocol):
    """What operators may ask of a running daemon."""

    async def control(self, verb: str, args: Mapping[str, Any]) -> Any:
        """Carry out a verb and return its data (JSON); raises `Refused`."""


class Channel(Protocol):
    """A way to reach us that the daemon starts, keeps running and stops."""

    name: str

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled; call `ready` when people can reach it. After an error it is run again."""
