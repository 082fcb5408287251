"""A text of any length as messages that Telegram takes."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from channels.letters import boundary
from channels.telegram.formatted import MAX_UNITS, Formatted, Span, units, visible

# Where a text may end, the best first: before a blank line, a line's end, after a sentence, a word.
_BREAKS = tuple(map(re.compile, (r"\n(?=[^\S\n]*\n)", r"\n", r"(?<=[.!?…])\s|(?<=[。！？])", r"\s")))


def split(whole: Formatted) -> list[Formatted]:
    """Cut a text into messages of at most 4,096 UTF-16 units, none of them without anything to see.

    Only white space is lost, at the borders. What fits into one message (a code block, a table, a link) is
    in one; a longer code block goes on in the next message as a code block of the same language.
    """
    return [part for part in _parts(whole) if visible(part.text)]


def opening(chunk: Formatted) -> Formatted:
    """What a bubble says before it is recorded: a beginning, never all of what it will say."""
    half = boundary(chunk.text, len(chunk.text) // 2)
    at = max((match.start() for match in _BREAKS[-1].finditer(chunk.text, 0, half)), default=half)
    begun = _trimmed(chunk, 0, at)
    if visible(begun.text) and begun.text + " …" != chunk.text:
        return Formatted(begun.text + " …", begun.spans)
    return Formatted("…" if chunk.text != "…" else "⏳")


def _parts(whole: Formatted) -> Iterator[Formatted]:
    unbroken = _unbroken(whole)
    starts = [start for start, _ in unbroken]
    spans = _Nearby(whole.spans)
    begin = 0
    while begin < len(whole.text):
        end = _cut(whole.text, begin, unbroken, starts)
        yield _trimmed(Formatted(whole.text, spans.of(begin, end)), begin, end)
        begin = end


def _cut(text: str, begin: int, unbroken: list[tuple[int, int]], starts: list[int]) -> int:
    """Where the message that begins at `begin` ends."""
    furthest = _reach(text, begin)
    if furthest == len(text):
        return furthest

    def inside(at: int) -> int | None:
        """Where the unbroken span begins that would be cut."""
        before = bisect_left(starts, at) - 1
        return starts[before] if before >= 0 and at < unbroken[before][1] else None

    half = (begin + furthest) // 2
    for earliest in (half, begin):
        for pattern in _BREAKS:
            for at in reversed([match.end() for match in pattern.finditer(text, earliest, furthest + 1)]):
                if begin < at <= furthest and inside(at) is None:
                    return at
        if (span := inside(furthest)) is not None and span > earliest:
            return span
    whole = boundary(text, furthest, begin)
    return whole if whole > begin and inside(whole) is None else furthest


def _reach(text: str, begin: int) -> int:
    """The longest that a message from `begin` on can be."""
    end = min(begin + MAX_UNITS, len(text))
    while (over := units(text[begin:end]) - MAX_UNITS) > 0:
        end -= (over + 1) // 2
    return end


def _unbroken(whole: Formatted) -> list[tuple[int, int]]:
    """The outermost spans that fit into one message, in order."""
    kept: list[tuple[int, int]] = []
    for span in whole.spans:
        inside = kept and span.start < kept[-1][1]
        if not inside and units(whole.text[span.start : span.end]) <= MAX_UNITS:
            kept.append((span.start, span.end))
    return kept


def _trimmed(whole: Formatted, begin: int, end: int) -> Formatted:
    """A part without white space at its borders; code keeps the indentation of its first line."""
    text = whole.text[begin:end]
    end = begin + len(text.rstrip())
    first = begin + len(text) - len(text.lstrip())
    for span in whole.spans:
        if span.kind == "pre" and span.start <= first < span.end:
            first = max(begin, span.start, whole.text.rfind("\n", begin, first) + 1)
            break
    return whole.part(first, end) if first < end else Formatted("")


class _Nearby:
    """Finds the spans of one part after another without looking at all of them each time."""

    def __init__(self, spans: tuple[Span, ...]) -> None:
        self._coming = spans
        self._next = 0
        self._current: list[Span] = []

    def of(self, begin: int, end: int) -> tuple[Span, ...]:
        """The spans of the part; parts are asked for in their order."""
        while self._next < len(self._coming) and self._coming[self._next].start < end:
            self._current.append(self._coming[self._next])
            self._next += 1
        self._current = [span for span in self._current if span.end > begin]
        return tuple(span for span in self._current if span.start < end)
