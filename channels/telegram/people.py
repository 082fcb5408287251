"""Who may talk to us."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from telegram import Message

from channels.telegram.pairing import Pairing


class People:
    """By a list of ids and @names, or (`allow` is None) by pairing. An empty list means nobody.

    An id of a group, or its approval, lets in all who write there.
    """

    def __init__(
        self, allow: Sequence[str] | None, pairing: Pairing, origin: Callable[[int], int] = lambda chat: chat
    ) -> None:
        self.by_pairing = allow is None
        self._pairing = pairing
        self._origin = origin  # the id that a group had before it became a supergroup
        entries = [entry.strip() for entry in allow or ()]
        self._ids = {int(entry) for entry in entries if entry.removeprefix("-").isdecimal()}
        # Without the empty name: whoever has no username would bear it.
        self._names = {entry[1:].lower() for entry in entries if entry.startswith("@")} - {""}

    def may_talk(self, message: Message) -> bool:
        """Whether its sender, or everybody in its chat, may talk to us."""
        if self.knows_chat(message.chat.id):
            return True
        if (chat := message.sender_chat) is not None:
            return chat.id in self._ids  # the user is a stand-in then, the same for everybody
        user = message.from_user
        if user is None:
            return False
        if self.by_pairing:
            return self._pairing.approved(f"user:{user.id}")
        return user.id in self._ids or (user.username or "").lower() in self._names

    def knows_chat(self, chat: int) -> bool:
        """Whether everybody in this chat may talk to us."""
        ids = {chat, self._origin(chat)}
        if self.by_pairing:
            return any(self._pairing.approved(peer(id)) for id in ids)
        return bool(ids & self._ids)


def peer(chat: int) -> str:
    """The peer id of a chat: the ids of people are positive."""
    return f"user:{chat}" if chat > 0 else f"chat:{chat}"
