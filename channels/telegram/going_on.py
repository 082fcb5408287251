"""What is said in several messages: of a paste or an album in a group only the first one names us."""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import NamedTuple

from telegram import Message

from session.ids import Peer

_GOES_ON = timedelta(seconds=3)  # between the parts of a paste, by Telegram's clock
_REMEMBERED = 256  # albums and pastes


class _Part(NamedTuple):
    message: Message
    long: bool  # another one may follow

    def continued_by(self, other: Message) -> bool:
        """Whether that is the next part, or this one once more."""
        if other.message_id == self.message.message_id:
            return True
        return self.long and other.date - self.message.date <= _GOES_ON and not other.reply_to_message


class GoingOn:
    """The last parts of what is to us: of albums by their id, of pastes by place and sender."""

    def __init__(self) -> None:
        self._parts: OrderedDict[tuple[object, ...], _Part] = OrderedDict()

    def ours(self, message: Message, peer: Peer, *, long: bool, addressed: bool) -> bool:
        """Whether a message is to us: it is `addressed`, or a part of what is.

        A message may be read several times: where it cannot be stored just now, it comes again.
        """
        who = message.sender_chat or message.from_user
        paste = (*peer, who.id if who else None)
        album = (message.chat.id, message.media_group_id) if message.media_group_id else None
        before = self._parts.pop(paste, None)
        part_of = before is not None and before.continued_by(message)
        if not (addressed or part_of or album in self._parts):
            return False
        for key in (paste if long or part_of else None, album):
            if key is not None:
                self._parts[key] = _Part(message, long)
        while len(self._parts) > _REMEMBERED:
            self._parts.popitem(last=False)
        return True
