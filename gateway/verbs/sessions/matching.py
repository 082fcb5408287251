"""What a search looks for in an event."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from gateway.errors import BadArgument
from gateway.verbs.sessions.printing import value
from session.events import Assistant, Event, System, ToolCall, ToolResult, Unknown, User

_AROUND = 120  # characters of a long line that are shown on either side of what was found


class Hit(NamedTuple):
    """One line of what was said, cut to what stands around the first match in it, and where that is."""

    line: str
    start: int
    end: int


class Needle:
    """A text or a regular expression, in either case of letters unless `case`; raises `BadArgument`."""

    def __init__(self, text: str, *, regex: bool = False, case: bool = False) -> None:
        if not text:
            raise BadArgument("Say what to look for.")
        # For ASCII alone "k" must not mean the Kelvin sign too: `may_be_in` would pass it over.
        flags = (0 if case else re.IGNORECASE) | (re.ASCII if text.isascii() and not regex else 0)
        try:
            self._pattern = re.compile(text if regex else re.escape(text), flags)
        except (re.error, OverflowError, RecursionError) as error:
            raise BadArgument(f"{text!r} is no regular expression: {error}.") from error
        self._lower = not case
        self._raw = None if regex else _as_stored(text, case=case)

    def may_be_in(self, raw: bytes) -> bool:
        """Whether lines of a transcript, as they are stored, need a closer look."""
        if self._raw is None or b"\\u" in raw:  # another program may have escaped any character so
            return True
        return self._raw in (raw.lower() if self._lower else raw)

    def hits(self, event: Event) -> Iterator[Hit]:
        """The lines of what an event says in which it is found."""
        for line in searchable(event).splitlines():
            if found := self._pattern.search(line):
                yield _cut(line, found.start(), found.end())


def _as_stored(text: str, *, case: bool) -> bytes | None:
    """The text as a line of JSON has it; None where it may be written in more than one way."""
    if not text.isprintable() or set(text) & set('"\\/'):
        return None
    if text.isascii():
        return text.encode() if case else text.lower().encode()
    return text.encode("utf-8", "surrogatepass") if case or text.lower() == text.upper() else None


def searchable(event: Event) -> str:
    """All that is looked at in an event."""
    match event:
        case User(content=content) | Assistant(content=content):
            return content
        case ToolCall(name=name, args=of) | ToolResult(name=name, result=of):
            return f"{name} {value(of)}"
        case System(name="session"):
            return ""
        case System(content=content):
            return content or ""
        case Unknown(data=data):
            return value(data)


def _cut(line: str, start: int, end: int) -> Hit:
    begin, stop = max(0, start - _AROUND), min(len(line), end + _AROUND)
    before = "…" if begin else ""
    cut = f"{before}{line[begin:stop]}{'…' if stop < len(line) else ''}"
    shift = begin - len(before)
    return Hit(cut, start - shift, end - shift)
