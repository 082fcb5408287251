"""What can come of a call to the Bot API, and the one table that says it of the library's exceptions.

ChannelError
├── BadPeer             a session whose peer is not a place in Telegram
└── NotDone             a call that had no effect, or may have had none
    ├── Flooded         429: nothing more in this chat for a while
    ├── NotReached      it never arrived, or Telegram could not do it just now: trying again is safe
    ├── Unknown         it may have been carried out, and nobody told us
    ├── Moved           the group is a supergroup now, under another id
    ├── Unreachable     403: blocked, kicked, deleted; trying again is useless for ever
    ├── NoSuchThread    the topic is deleted or closed
    ├── NoSuchMessage   what should be edited or deleted is not there, or not any more ours to change
    ├── Unformattable   the entities are refused; the text alone may be taken
    ├── Unchanged       the message says so already
    └── Rejected        any other refusal
"""

from __future__ import annotations

import re
from datetime import timedelta

from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
    TimedOut,
)

from channels.errors import ChannelError

_LONGEST_REASON = 200  # a gateway's HTML page may be in it


class BadPeer(ChannelError):
    """A session whose peer is not a place in Telegram."""


class NotDone(ChannelError):
    """A call that had no effect, or may have had none; its text is Telegram's own reason."""

    retry_after = 0.0  # seconds, of `Flooded`
    chat_id = 0  # of `Moved`


class Flooded(NotDone):
    """429: nothing more in this chat for `retry_after` seconds."""


class NotReached(NotDone):
    """It never arrived, or Telegram could not do it just now: trying again is safe."""


class Unknown(NotDone):
    """It may have been carried out, and nobody told us."""


class Moved(NotDone):
    """The group is a supergroup now, under `chat_id`."""


class Unreachable(NotDone):
    """403: blocked, kicked, deleted; trying again is useless for ever."""


class NoSuchThread(NotDone):
    """The topic is deleted or closed."""


class NoSuchMessage(NotDone):
    """What should be edited or deleted is not there, or not any more ours to change."""


class Unformattable(NotDone):
    """The entities are refused; the text alone may be taken."""


class Unchanged(NotDone):
    """The message says so already."""


class Rejected(NotDone):
    """Any other refusal."""


# The first row that fits: the library's exception, what its text (and the name of its cause) has, our word.
# `BadRequest` and `TimedOut` are `NetworkError`s.
_TABLE: tuple[tuple[type[TelegramError], str, type[NotDone]], ...] = (
    (RetryAfter, "", Flooded),
    (ChatMigrated, "", Moved),
    (Forbidden, "", Unreachable),
    (BadRequest, "message is not modified", Unchanged),
    (BadRequest, "message to (edit|delete) not found|message can't be (edited|deleted)", NoSuchMessage),
    (BadRequest, "message_id_invalid", NoSuchMessage),
    (BadRequest, "message thread not found|topic_(closed|deleted|id_invalid)", NoSuchThread),
    (BadRequest, "parse entit|entity|URL", Unformattable),
    (BadRequest, "", Rejected),
    (InvalidToken, "", NotReached),  # 401 and 404: the operator's to mend, and polling says so
    (Conflict, "", NotReached),
    (TimedOut, "ConnectionTimeoutError", NotReached),
    (TimedOut, "", Unknown),
    (NetworkError, "Too Many Requests", NotReached),  # a 429 that does not say how long
    (NetworkError, "ClientConnector|ClientProxy|ClientHttpProxy|InvalidURL", NotReached),
    (NetworkError, "", Unknown),  # a connection that broke, 5xx, a gateway's page
    (TelegramError, "", Unknown),  # 200, and no JSON
)


def classify(error: TelegramError, secret: str) -> NotDone:
    """Say by the table what came of a call; `secret` is kept out of the reason."""
    text = f"{error.message} {type(error.__cause__).__name__}"
    kind = next(
        kind
        for foreign, pattern, kind in _TABLE
        if isinstance(error, foreign) and re.search(pattern, text, re.IGNORECASE)
    )
    done = kind(without(secret, error.message)[:_LONGEST_REASON])
    if isinstance(error, RetryAfter):
        wait = error.retry_after  # seconds or a timedelta, by the environment's PTB_TIMEDELTA
        done.retry_after = wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
    elif isinstance(error, ChatMigrated):
        done.chat_id = error.new_chat_id
    return done


def without(secret: str, text: str) -> str:
    """A text that may repeat the token, of which the library may have made all letters small."""
    return re.sub(re.escape(secret), "<token>", text, flags=re.IGNORECASE)
