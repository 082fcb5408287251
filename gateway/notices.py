"""What nodes say to each other, and how it fits into notices: ASCII, each shorter than the store's limit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import msgspec

from channels.base import Answer, Receipt
from channels.errors import ErrorCode, Refused
from gateway.relay import Item
from session.events import Usage
from session.protocols import NOTICE_BYTES


class Here(msgspec.Struct, frozen=True, tag=True):
    """A node has come."""


class Taken(msgspec.Struct, frozen=True, tag=True):
    """The sender runs the session's turns from now on."""

    session: str


class Released(msgspec.Struct, frozen=True, tag=True):
    """The sender runs them no longer, though something may be open."""

    session: str


class Watch(msgspec.Struct, frozen=True, tag=True):
    """Somebody watches the session at the sender, which wants to be told what its feed says."""

    session: str
    key: str


class Unwatch(msgspec.Struct, frozen=True, tag=True):
    """Nobody does any more."""

    session: str
    key: str


class News(msgspec.Struct, frozen=True, tag=True):
    """What the session's feed says; None: the sender does not run its turns."""

    session: str
    key: str
    items: list[Item] | None


class Hold(msgspec.Struct, frozen=True, tag=True):
    """More of the same is expected in the session within so many seconds."""

    session: str
    seconds: float


class Used(msgspec.Struct, frozen=True, tag=True):
    """An event with this usage was stored."""

    session: str
    usage: Usage


class Command(msgspec.Struct, frozen=True, tag=True):
    """A command as somebody typed it."""

    name: str
    argument: str
    id: str
    operator: bool


class Retry(msgspec.Struct, frozen=True, tag=True):
    """A message is to be asked again, as message `id`."""

    id: str
    of: str


class Stop(msgspec.Struct, frozen=True, tag=True):
    """The running turn is to be stopped."""


class Approve(msgspec.Struct, frozen=True, tag=True):
    """The person's word on a tool call."""

    call_id: str
    allow: bool


class Erase(msgspec.Struct, frozen=True, tag=True):
    """The session is to be removed for good."""


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """A `Refused`."""

    code: ErrorCode
    public: str
    retry_after: float | None = None

    @classmethod
    def of(cls, refused: Refused) -> Refusal:
        return cls(refused.code, refused.public, refused.retry_after)

    def error(self) -> Refused:
        """The error that it stands for."""
        return Refused(self.code, self.public, retry_after=self.retry_after)


class Done(msgspec.Struct, frozen=True, tag=True):
    """It was carried out; `found`: there was something to stop, or to remove."""

    found: bool = True


class NotMine(msgspec.Struct, frozen=True, tag=True):
    """The node that was asked does not run the session's turns."""


What = Command | Retry | Stop | Approve | Erase
Outcome = Receipt | Answer | Done | Refusal | NotMine


class Request(msgspec.Struct, frozen=True, tag=True):
    """Something that only the owner of a session can do."""

    id: int
    session: str
    what: What


class Reply(msgspec.Struct, frozen=True, tag=True):
    """What came of it."""

    id: int
    outcome: Outcome


Notice = Here | Taken | Released | Watch | Unwatch | News | Hold | Used | Request | Reply

_numbers = itertools.count(1)
_HEAD = 40  # bytes before a part of a notice, at most


def parts(notice: Notice) -> Iterator[str]:
    """The notice as texts to send, in order; one that is too long is cut into several."""
    text = json.dumps(msgspec.to_builtins(notice), separators=(",", ":"))
    if len(text) <= NOTICE_BYTES:
        yield text
        return
    size, number = NOTICE_BYTES - _HEAD, next(_numbers)
    count = -(-len(text) // size)
    for place in range(count):
        yield f"{number}/{place}/{count}:{text[place * size : (place + 1) * size]}"


class Assembly:
    """Puts together what several senders cut; what has a gap is dropped."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[str, list[str]]] = {}  # number and parts so far, by sender

    def take(self, sender: int, text: str) -> Notice | None:
        """The notice that is whole with this text, if it is; raises `ValueError` for what is none."""
        if text.startswith("{"):
            return _read(text)
        head, _, part = text.partition(":")
        number, place, count = head.split("/")
        begun, parts = self._begun.get(sender, ("", []))
        if begun != number or int(place) != len(parts):
            parts = []
            if int(place) != 0:
                self._begun.pop(sender, None)
                return None
        self._begun[sender] = (number, [*parts, part])
        if int(place) + 1 < int(count):
            return None
        return _read("".join(self._begun.pop(sender)[1]))


def _read(text: str) -> Notice:
    read: Notice = msgspec.convert(json.loads(text), Notice)
    return read
