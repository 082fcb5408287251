"""A place in Telegram that can be written to."""

from __future__ import annotations

import re

import msgspec

from channels.telegram.errors import BadPeer
from session.errors import BadSessionId
from session.ids import SessionId, parse

_PEER = re.compile(r"user:(?P<user>\d+)|chat:(?P<chat>-?\d+)(?::topic:(?P<topic>\d+))?")
_ID = re.compile(r"-?\d+")
_MESSAGE = re.compile(r"(-?\d+)_(\d+)(?!\d)")
_GENERAL = 1  # the topic of a forum that has no id for a bot: "message thread not found"


class Chat(msgspec.Struct, frozen=True):
    """`id` is the Bot API's; `topic` its `message_thread_id`, None outside of a topic."""

    id: int
    topic: int | None = None

    @property
    def private(self) -> bool:
        """Whether it is one person's chat: the ids of people are positive."""
        return self.id > 0

    def message(self, id: str) -> int | None:
        """The message id in a stored message's id (`<chat>_<message_id>`), None if that is another chat's."""
        found = _MESSAGE.match(id)
        return int(found[2]) if found and int(found[1]) == self.id else None


def of_peer(peer_id: str, address: str | None = None) -> Chat:
    """The peer's place, or the one it has moved to; raises `BadPeer`."""
    found = _PEER.fullmatch(peer_id)
    if found is None or (address is not None and not _ID.fullmatch(address)):
        raise BadPeer(f"peer {peer_id!r} at {address!r} is not user:<id>, chat:<id> or chat:<id>:topic:<n>")
    topic = int(found["topic"] or _GENERAL)
    id = int(address or found["user"] or found["chat"])
    return Chat(id, None if topic == _GENERAL else topic)


def of_session(session: SessionId, address: str | None) -> Chat:
    """The place of a session's peer; raises `BadPeer`."""
    try:
        _, peer = parse(session)
    except BadSessionId as error:
        raise BadPeer(str(error)) from error
    return of_peer(peer.peer_id, address)
