"""Words for a full-text index: how a text is cut into them, and how a model's query becomes a safe one."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Scripts without spaces between words, and Hangul, whose particles cling to them: each character is a word.
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul
)
_CHARACTER = f"([{_UNSPACED}])"  # compiled at the first need: that takes longer than a start may
_RUN = rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+"
_PREFIX = 3  # characters from which on the beginning of a word is enough
_MOST_WORDS = 24


def searchable(text: str) -> str:
    """The text as it is indexed."""
    return re.sub(_CHARACTER, r" \1 ", text)


def queries(query: str) -> Iterator[str]:
    """FTS5 queries, strictest first: all of the words, then any of them. Nothing of it is ever syntax."""
    words = [_quoted(word) for word in re.findall(_RUN, query)[:_MOST_WORDS]]
    if words:
        yield " AND ".join(words)
    if len(words) > 1:
        yield " OR ".join(words)


def _quoted(word: str) -> str:
    if re.match(_CHARACTER, word):
        return f'"{searchable(word).strip()}"'
    return f'"{word}"*' if len(word) >= _PREFIX else f'"{word}"'
