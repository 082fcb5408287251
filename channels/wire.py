"""The frames of protocol version 1, shared by the WebSocket and the Unix socket."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from channels.errors import ErrorCode, Refused
from session import events

PROTOCOL = 1
MAX_CLIENT_FRAME = 512 * 1024
MAX_SERVER_FRAME = 1024 * 1024
MAX_TEXT = 64 * 1024
HISTORY_LIMIT = 200

ClientId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]


class _Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


# -- from the client -----------------------------------------------------------------------------


class Hello(_Frame, frozen=True, kw_only=True, tag="hello"):
    """Must be the first; see docs/protocol.md for every member."""

    protocol: int
    session: str | None = None
    token: str | None = None
    agent: str | None = None
    after: str | None = None
    render: Literal["text", "html"] = "text"
    client: Annotated[str, Meta(max_length=200)] | None = None


class Message(_Frame, frozen=True, kw_only=True, tag="message"):
    """Something to say; `id` is the client's own and makes a repeat recognisable."""

    id: ClientId
    text: str


class Stop(_Frame, frozen=True, kw_only=True, tag="stop"):
    """Stop the running turn."""


class Retry(_Frame, frozen=True, kw_only=True, tag="retry"):
    """Ask message `of` again."""

    id: ClientId
    of: ClientId


class History(_Frame, frozen=True, kw_only=True, tag="history"):
    """Older events than the one after which `before` stands."""

    before: str | None = None
    limit: Annotated[int, Meta(ge=1, le=HISTORY_LIMIT)] = 50


class Approve(_Frame, frozen=True, kw_only=True, tag="approve"):
    """The person's word on a tool call."""

    call_id: str
    allow: bool


class ControlFrame(_Frame, frozen=True, kw_only=True, tag="control"):
    """An operator's verb; Unix socket only."""

    id: ClientId
    verb: str
    args: dict[str, Any] = {}


ClientFrame = Hello | Message | Stop | Retry | History | Approve | ControlFrame

# -- from the gateway ----------------------------------------------------------------------------


class RunningFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A turn in progress, inside `welcome`."""

    turn: str
    answers: tuple[str, ...]
    text: str | None = None
    blocks: list[str] | None = None


class Welcome(_Frame, frozen=True, kw_only=True, tag="welcome", omit_defaults=False):
    """The session is open."""

    protocol: int = PROTOCOL
    session_id: str
    session: str | msgspec.UnsetType = msgspec.UNSET
    agent: str
    model: str
    turns: int
    running: RunningFrame | None
    reset: bool | msgspec.UnsetType = msgspec.UNSET


class EventItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event, inside `history`."""

    cursor: str
    event: msgspec.Raw
    html: str | None = None
    truncated: bool = False


class EventFrame(_Frame, frozen=True, kw_only=True, tag="event"):
    """One event, replayed or live."""

    cursor: str
    event: msgspec.Raw
    html: str | None = None
    truncated: bool = False


class Ack(_Frame, frozen=True, kw_only=True, tag="ack", omit_defaults=False):
    """The message is on disk."""

    id: str
    cursor: str
    queued: int


class StartedFrame(_Frame, frozen=True, kw_only=True, tag="started"):
    """A turn began."""

    turn: str
    answers: tuple[str, ...]
    attempt: int


class DeltaFrame(_Frame, frozen=True, kw_only=True, tag="delta"):
    """More of the reply, as text."""

    turn: str
    text: str


class BlockFrame(_Frame, frozen=True, kw_only=True, tag="block"):
    """The rendering so far of one block of the reply."""

    turn: str
    index: int
    html: str


class ToolFrame(_Frame, frozen=True, kw_only=True, tag="tool"):
    """A tool changed its state."""

    turn: str
    call_id: str
    name: str
    state: Literal["started", "finished", "failed"]


class ApprovalFrame(_Frame, frozen=True, kw_only=True, tag="approval"):
    """The person is asked whether a tool may run; see `channels.base.Approval`.

    `truncated`: `args` is the beginning of their JSON, as a text.
    """

    turn: str
    call_id: str
    name: str
    args: Any
    expires: str
    number: int = 1
    truncated: bool = False


class DoneFrame(_Frame, frozen=True, kw_only=True, tag="done"):
    """The turn is over."""

    turn: str
    outcome: Literal["completed", "stopped", "failed"]
    cursor: str


class HistoryPage(_Frame, frozen=True, kw_only=True, tag="history"):
    """Older events, oldest first; `more` when there are older ones still."""

    events: list[EventItem]
    more: bool


class Notice(_Frame, frozen=True, kw_only=True, tag="notice"):
    """Something for the person that is not part of the transcript."""

    text: str
    html: str | None = None
    id: str | None = None


class Result(_Frame, frozen=True, kw_only=True, tag="result"):
    """The answer to `control`."""

    id: str
    ok: bool
    data: Any


class Error(_Frame, frozen=True, kw_only=True, tag="error"):
    """What was not done, and what the person can do."""

    code: ErrorCode
    message: str
    id: str | None = None
    retry_after: float | None = None


ServerFrame = (
    Welcome
    | EventFrame
    | Ack
    | StartedFrame
    | DeltaFrame
    | BlockFrame
    | ToolFrame
    | ApprovalFrame
    | DoneFrame
    | HistoryPage
    | Notice
    | Result
    | Error
)

encode = events.to_json


def parse(data: bytes | str) -> ClientFrame:
    """Read one client frame; raises `Refused` with `bad_json`, `bad_utf8`, `bad_frame` or `frame_too_large`.

    Stricter than JSON readers usually are: a member named twice, NaN and Infinity are refused.
    """
    if len(data) > MAX_CLIENT_FRAME:
        raise Refused("frame_too_large", f"A frame may have at most {MAX_CLIENT_FRAME} bytes.")
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = _reader.decode(text)
    except UnicodeDecodeError as error:
        raise Refused("bad_utf8", f"The frame is not UTF-8 (byte {error.start}).") from error
    except RecursionError as error:
        raise Refused("bad_json", "The frame is nested too deeply.") from error
    except ValueError as error:
        raise Refused("bad_json", f"The frame is not JSON: {error}") from error
    try:
        frame: ClientFrame = msgspec.convert(value, ClientFrame)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the second: a surrogate in a name
        raise Refused("bad_frame", f"The frame does not fit the protocol: {error}") from error
    return frame


def decode(data: bytes | str) -> ServerFrame:
    """Read one frame of the gateway, as clients do (unknown members are ignored).

    Raises `msgspec.DecodeError`.
    """
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _decode_surrogates(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"not a frame: {error}") from error


def _decode_surrogates(data: bytes | str) -> ServerFrame:
    # msgspec refuses the escape of a lone surrogate, which a person's text may hold; json does not.
    try:
        value = json.loads(data)
        for holder in (value, *value.get("events", ())):
            if "event" in holder:
                holder["event"] = msgspec.Raw(events.to_json(holder["event"]))
        frame: ServerFrame = msgspec.convert(value, ServerFrame)
    except msgspec.DecodeError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise msgspec.DecodeError(f"not a frame: {error}") from error
    return frame


_decoder: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_reader = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
