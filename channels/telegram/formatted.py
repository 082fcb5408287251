"""A text with its formatting, as Telegram shows it, and how Telegram counts it.

Telegram counts in UTF-16 code units (https://core.telegram.org/bots/api#messageentity); Python counts code
points. Everything here counts code points, and `entities` converts at the rim.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal, NamedTuple

from telegram import MessageEntity

MAX_UNITS = 4096  # of a message
MAX_ENTITIES = 100  # of a message; Telegram drops further ones, whichever they are

Kind = Literal["pre", "text_link", "code", "blockquote", "bold", "italic", "strikethrough"]

# What a person misses most comes first.
_RANK: dict[Kind, int] = {
    "pre": 0,
    "text_link": 1,
    "code": 2,
    "blockquote": 3,
    "bold": 4,
    "italic": 5,
    "strikethrough": 6,
}
# White space, controls, marks of direction; and four letters that are blank.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc")


class Span(NamedTuple):
    """One entity: `text[start:end]` is shown as `kind`; spans lie in each other or apart."""

    kind: Kind
    start: int
    end: int
    url: str | None = None
    language: str | None = None


class Formatted(NamedTuple):
    """A text and its spans, outer before inner, in the order of their beginnings."""

    text: str
    spans: tuple[Span, ...] = ()

    def part(self, start: int, end: int) -> Formatted:
        """`text[start:end]` with what lies there of each span."""
        spans = (
            span._replace(start=max(span.start, start) - start, end=min(span.end, end) - start)
            for span in self.spans
            if span.start < end and span.end > start
        )
        return Formatted(self.text[start:end], tuple(spans))

    def entities(self) -> list[MessageEntity]:
        """The spans as the Bot API takes them, the 100 most important ones if there are more."""
        kept = self.spans
        if len(kept) > MAX_ENTITIES:
            kept = tuple(sorted(sorted(kept, key=_importance)[:MAX_ENTITIES], key=_place))
        wide = [index for index, char in enumerate(self.text) if char > "\uffff"]

        def units_before(index: int) -> int:
            return index + bisect_left(wide, index)

        return [
            MessageEntity(
                span.kind,
                begin := units_before(span.start),
                units_before(span.end) - begin,
                url=span.url,
                language=span.language,
            )
            for span in kept
        ]


def _importance(span: Span) -> tuple[int, int]:
    return _RANK[span.kind], span.start


def _place(span: Span) -> tuple[int, int]:
    return span.start, -span.end


def joined(pieces: Iterable[Formatted], between: str = "\n\n") -> Formatted:
    """The pieces as one, with `between` between them."""
    texts: list[str] = []
    spans: list[Span] = []
    length = 0
    for piece in pieces:
        if texts:
            texts.append(between)
            length += len(between)
        texts.append(piece.text)
        spans += (span._replace(start=span.start + length, end=span.end + length) for span in piece.spans)
        length += len(piece.text)
    return Formatted("".join(texts), tuple(spans))


def units(text: str) -> int:
    """How long Telegram says that a text is."""
    return len(text) + sum(char > "\uffff" for char in text)


def visible(text: str) -> bool:
    """Whether there is anything to see: Telegram refuses a message without."""
    return any(char not in _BLANK and unicodedata.category(char) not in _INVISIBLE for char in text)
