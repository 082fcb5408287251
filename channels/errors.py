"""What a channel tells a person instead of doing what was asked.

ChannelError
├── Refused         the gateway will not do it: a code of the protocol and a sentence to act on
└── SocketInUse     another daemon listens there
"""

from __future__ import annotations

from typing import Literal

ErrorCode = Literal[
    "bad_json",
    "bad_utf8",
    "bad_frame",
    "frame_too_large",
    "text_too_large",
    "hello_expected",
    "unsupported_protocol",
    "unauthorized",
    "not_allowed",
    "rate_limited",
    "queue_full",
    "id_conflict",
    "storage_unavailable",
    "not_found",
    "shutting_down",
]


class ChannelError(Exception):
    """Base of every error of this package."""


class Refused(ChannelError):
    """A request that is not carried out; `public` is for the person, `retry_after` in seconds."""

    def __init__(self, code: ErrorCode, public: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {public}")
        self.code: ErrorCode = code
        self.public = public
        self.retry_after = retry_after


class SocketInUse(ChannelError):
    """The socket's path belongs to a process that is listening on it."""
