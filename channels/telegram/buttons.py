"""The buttons under a question, and what it means that somebody has pressed one."""

from __future__ import annotations

import re
from typing import NamedTuple

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from channels.telegram.chat import Chat
from session.ids import Peer

_MOST = 64  # bytes of a button's data (https://core.telegram.org/bots/api#inlinekeyboardbutton)
_DATA = re.compile(r"(yes|no) (\S+)")


class Decision(NamedTuple):
    """What a button stands for: a word on one call, whose arguments cannot change any more."""

    call_id: str
    allow: bool


class Pressed(NamedTuple):
    """Somebody pressed a button under our message. `may`: they may talk to us; `decision`: None for no button
    that we know."""

    query: str
    chat: Chat
    message_id: int
    peer: Peer
    decision: Decision | None
    may: bool


def keyboard(call_id: str) -> InlineKeyboardMarkup | None:
    """Yes and no to a call; None where its id is too long for a button (`/yes` and `/no` remain)."""
    rows = (("Allow", f"yes {call_id}"), ("Don't allow", f"no {call_id}"))
    if any(len(data.encode()) > _MOST for _, data in rows):
        return None
    return InlineKeyboardMarkup([[InlineKeyboardButton(text, callback_data=data) for text, data in rows]])


def decision(data: str | None) -> Decision | None:
    """What a button of ours stands for; None for any other."""
    found = _DATA.fullmatch(data or "")
    return Decision(found[2], found[1] == "yes") if found else None
