"""Events, sizes and times for people's eyes, on terminals that no text may command."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec

from session.events import Assistant, Event, System, ToolCall, ToolResult, Unknown, User

_LONGEST_VALUE = 500  # characters of a tool's arguments or result
UNFINISHED = ("cut", "stopped", "length", "filtered")

# What could command a terminal: C0 without tab and newline, DEL, C1, what turns the direction of text
# around, and lone surrogates, which cannot be written at all.
_CONTROLS = [
    *range(0x09),
    *range(0x0B, 0x20),
    *range(0x7F, 0xA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]
_HARMLESS = dict.fromkeys([*_CONTROLS, *range(0xD800, 0xE000)], "\ufffd")
_ESCAPED = {code: f"\\u{code:04x}" for code in _HARMLESS if code >= 0x7F}  # JSON has the others escaped


def printable(text: str) -> str:
    """The text with nothing in it that a terminal would obey."""
    return text.translate(_HARMLESS)


def printable_json(line: bytes) -> str:
    """The same for a line of JSON, without a change of what it says."""
    return line.decode("utf-8", "replace").translate(_ESCAPED)


def print_json(**values: Any) -> None:
    """One object, on a line of its own."""
    print(json.dumps(values))


def readable(event: Event) -> str:
    """An event as a person reads it, with its time; the lines behind its first are indented."""
    return f"{local(event.ts)}  {speaker(event):<9}  {_indented(said(event))}"


def speaker(event: Event) -> str:
    """Who or what the event is of, in at most nine letters."""
    match event:
        case User():
            return "you"
        case Assistant():
            return "assistant"
        case ToolCall() | ToolResult():
            return "tool"
        case System():
            return "·"
        case Unknown():
            return "?"


def said(event: Event) -> str:
    """What an event says; a tool's values in short."""
    match event:
        case User(content=content):
            return content
        case Assistant(content=content, finish=finish):
            return content + (f" [{finish}]" if finish in UNFINISHED else "")
        case ToolCall(name=name, args=args):
            return f"{name}({_short(value(args))})"
        case ToolResult(name=name, result=result, ok=ok):
            return f"{name} {'→' if ok is not False else 'failed:'} {_short(value(result))}"
        case System(name=name, content=content):
            return f"{name}{': ' + content if content else ''}"
        case Unknown(data=data):
            return _short(value(data))


def value(of: Any) -> str:
    """A tool's arguments or result as text."""
    return of if isinstance(of, str) else json.dumps(msgspec.to_builtins(of), ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 29)


def local(ts: str) -> str:
    """A transcript's time in this machine's zone, to the minute; blanks where it is none."""
    try:
        return datetime.fromisoformat(ts).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return " " * 16


def iso(seconds: float) -> str:
    """A moment since the epoch, in this machine's zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def size(number: int) -> str:
    """Bytes in the largest unit that suits them."""
    if number < 1024:
        return f"{number} B"
    if number < 2**20:
        return f"{number / 1024:.1f} KiB"
    return f"{number / 2**20:.1f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"


def count(number: int, noun: str) -> str:
    """A number of things, such as `1 session` or `2 sessions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
