"""Who may talk to us."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from telegram import Message, User

from channels.telegram.pairing import Pairing


class People:
    """By a list of ids and @names, or (`allow` is None) by pairing. An empty list means nobody.

    An id of a group, or its approval, lets in all who write there.
    """

    def __init__(
        self, allow: Sequence[str] | None, pairing: Pairing, origin: Callable[[int], int] = lambda chat: chat
    ) -> None:
        self._pairing = pairing
        self._origin = origin  # the id that a group had before it became a supergroup
        self.admit(allow)

    def admit(self, allow: Sequence[str] | None) -> None:
        """Let these talk to us from now on, and nobody else."""
        self.by_pairing = allow is None
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
        return message.from_user is not None and self._knows(message.from_user)

    def may_press(self, user: User, chat: int) -> bool:
        """Whether somebody's word on a question in this chat counts."""
        return self.knows_chat(chat) or self._knows(user)

    def _knows(self, user: User) -> bool:
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
