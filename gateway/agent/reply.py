"""What a model answers with: that it was asked, pieces of text, then exactly one end."""

from typing import Literal

import msgspec

from session.events import Usage

FinishReason = Literal["stop", "length", "filtered", "cut", "tool_calls"]


class Call(msgspec.Struct, frozen=True):
    """A tool that the model wants to be run."""

    name: str
    arguments: str  # the JSON text as the model wrote it; nobody has checked that it parses
    id: str  # the provider's; made here where the server gave none


class Text(msgspec.Struct, frozen=True, tag=True):
    """More of the reply, never empty: all that one read from the socket brought."""

    text: str


class Asked(msgspec.Struct, frozen=True, tag=True):
    """A request was sent: what it takes at least, as an estimate, should nobody hear its end."""

    usage: Usage


class Finish(msgspec.Struct, frozen=True, tag=True):
    """The end of a reply.

    `cut`: the stream broke after text had been shown. `calls` is filled for `tool_calls` alone: the
    calls of a reply that was cut short are incomplete. `length` and `filtered` may come without any text.
    `reasoning`: what the model thought, where that is to be stored.
    """

    reason: FinishReason
    calls: tuple[Call, ...]
    model: str  # the name that the server gave itself
    usage: Usage | None
    reasoning: str = ""
