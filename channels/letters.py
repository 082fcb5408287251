"""Where a text may be cut: not inside of what a person takes for one letter, such as a flag or a family."""

from __future__ import annotations

_LONGEST = 64  # code points looked at: an emoji of a family has 7, a flag 14


def boundary(text: str, at: int, begin: int = 0) -> int:
    """The last place up to `at`, from `begin` on, that is not inside of a letter."""
    if at >= len(text) or at <= begin:
        return at
    from wcwidth import grapheme_boundary_before  # its tables take 30 ms, and most texts are short

    window = max(begin, at - _LONGEST)
    return window + grapheme_boundary_before(text[window : at + 1], at + 1 - window)


def shortened(text: str, longest: int) -> str:
    """At most so many characters of the text; where it is cut, an ellipsis is the last of them."""
    if len(text) <= longest:
        return text
    return text[: boundary(text, longest - 1) or longest - 1] + "…"
