"""The five roles of a transcript, and one event <-> one line."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from session.errors import BadEvent

Finish = Literal["stop", "length", "filtered", "cut", "stopped", "tool_calls"]

FORMAT = 1
_CRC = re.compile(rb',"crc":"([0-9a-f]{8})"}\Z')
_CRC_LENGTH = len(b',"crc":"00000000"}')


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="role"):
    """Each role has its own `ts`, as its last member: the order of a line is the order of the fields."""


class User(_Event, frozen=True, kw_only=True, tag="user"):
    """Something a person said; without `id` it is history and is never answered.

    `of`: the messages that it asks once more.
    """

    content: str
    id: str | None = None
    of: tuple[str, ...] | None = None
    ts: str = ""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one or more model calls took: tokens, and money in the unit of the configured prices.

    `cost` is None where no price is configured. `estimated`: part of it was not reported by the server.
    """

    input: int = 0
    output: int = 0
    cost: float | None = None
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            self.input + other.input,
            self.output + other.output,
            sum(costs) if costs else None,
            self.estimated or other.estimated,
        )

    @property
    def tokens(self) -> int:
        """In and out together."""
        return self.input + self.output


class Assistant(_Event, frozen=True, kw_only=True, tag="assistant"):
    """Something the agent said; with `answers` it closes its turn."""

    content: str
    turn: str | None = None
    answers: tuple[str, ...] | None = None
    finish: Finish | None = None
    model: str | None = None
    usage: Usage | None = None
    reasoning: str | None = None  # what the model thought: kept where that was asked for, shown to nobody
    ts: str = ""


class ToolCall(_Event, frozen=True, kw_only=True, tag="tool_call"):
    """A tool that is about to be run; on disk before it starts."""

    name: str
    args: Any = None
    call_id: str | None = None
    turn: str | None = None
    ts: str = ""


class ToolResult(_Event, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool answered; `ok` is false where it failed or was interrupted."""

    name: str = ""
    result: Any = None
    call_id: str | None = None
    ok: bool | None = None
    turn: str | None = None
    ts: str = ""


class System(_Event, frozen=True, kw_only=True, tag="system"):
    """Something that the gateway notes, told apart by `name`; docs/transcript.md lists them."""

    name: str = ""
    content: str | None = None
    format: int | None = None
    id: str | None = None
    turn: str | None = None
    messages: tuple[str, ...] | None = None
    attempt: int | None = None
    answers: tuple[str, ...] | None = None
    key: str | None = None
    value: Any = None
    part: int | None = None
    message_id: int | None = None
    chat: str | None = None
    of: str | None = None
    call_id: str | None = None
    allow: bool | None = None
    sender: str | None = msgspec.field(default=None, name="from")
    final: bool | None = None
    covers: str | None = None
    instead: bool | None = None
    model: str | None = None
    usage: Usage | None = None
    ts: str = ""


class Unknown(_Event, frozen=True, kw_only=True):
    """A valid JSON object that is none of ours: kept, shown to operators, never to the model."""

    data: Any = None
    ts: str = ""


Event = User | Assistant | ToolCall | ToolResult | System | Unknown
_Known = User | Assistant | ToolCall | ToolResult | System
_FIELDS = {"role"}.union(*(kind.__struct_encode_fields__ for kind in get_args(_Known)))


class Record(NamedTuple):
    """One stored event: where it ends (the cursor after it), the event, and its JSON as stored."""

    cursor: str
    event: Event
    line: bytes

    def json(self) -> bytes:
        """The event's JSON for other people's eyes, without its checksum."""
        return bare(self.line)


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[_Known] = msgspec.json.Decoder(_Known)


class BadLine(ValueError):
    """The line is not an event: not JSON, not an object, or its checksum does not hold."""


def now() -> str:
    """The time as transcripts write it: UTC, RFC 3339, milliseconds, `Z`."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    """Write an aware moment as transcripts do."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stamped(event: Event, clock: Callable[[], str] = now) -> Event:
    """The event with the time of now, unless it has one already."""
    return event if event.ts else msgspec.structs.replace(event, ts=clock())


def to_json(value: Any) -> bytes:
    """Encode as plain UTF-8 JSON; what UTF-8 cannot carry (lone surrogates) is escaped."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value)
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8", "backslashreplace")


def encode(event: Event) -> bytes:
    """One event as its line, checksum and newline included; raises `BadEvent`."""
    try:
        body = to_json(event)[:-1]
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadEvent(f"this {type(event).__name__} cannot be written as JSON: {error}") from error
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


def decode(line: bytes) -> Event:
    """One line, without its newline, as an event; raises `BadLine`."""
    if found := _checksum(line):
        if zlib.crc32(memoryview(line)[:-_CRC_LENGTH]) != int(found[1], 16):
            raise BadLine("the checksum does not hold")
    else:
        _text(line)  # msgspec does not look at the names of fields that it passes over
    try:
        return _decoder.decode(line)
    except msgspec.ValidationError:
        return _unknown(line)
    except (msgspec.DecodeError, RecursionError):
        return _with_surrogates(line)


def bare(line: bytes) -> bytes:
    """The event's JSON as others may see it: the line without its checksum."""
    return line[:-_CRC_LENGTH] + b"}" if _checksum(line) else line


def _checksum(line: bytes) -> re.Match[bytes] | None:
    return _CRC.match(line, max(0, len(line) - _CRC_LENGTH))


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadLine("not UTF-8") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _object(line: bytes) -> dict[str, Any]:
    text = _text(line)  # json itself would take UTF-16 and raw surrogates as well
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadLine("not JSON") from error
    if not isinstance(value, dict):
        raise BadLine("not a JSON object")
    value.pop("crc", None)
    return value


def _unknown(line: bytes) -> Event:
    data = _object(line)
    ts = data.get("ts")
    return Unknown(data=data, ts=ts if isinstance(ts, str) else "")


def _with_surrogates(line: bytes) -> Event:
    # msgspec refuses the escape of a lone surrogate, json does not; nobody takes it in a field's name.
    data = _object(line)
    try:
        known: Event = msgspec.convert({name: data[name] for name in data if name in _FIELDS}, _Known)
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError):
        return _unknown(line)
    return known


def closes(event: Event) -> tuple[str, ...] | None:
    """The ids of the messages that the event is the answer to; None where it closes no turn."""
    match event:
        case Assistant(answers=answers) | System(name="turn_failed", answers=answers):
            return answers
    return None
