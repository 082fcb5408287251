"""What a terminal may be given: text from models and other people, without the power to steer it."""

from __future__ import annotations

from channels.letters import shortened

# C0 without tab and newline, DEL and C1: with them a reply could set the title, the clipboard or the colours.
_CONTROLS = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]
# What turns the direction of writing round: it could make a question read as another one.
_DIRECTIONS = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SURROGATES = range(0xD800, 0xE000)

_HARMLESS: dict[int, str | None] = {
    **dict.fromkeys([*_CONTROLS, *_DIRECTIONS]),
    **dict.fromkeys(_SURROGATES, "\ufffd"),
}
_ESCAPED = {code: f"\\u{code:04x}" for code in [*range(0x7F, 0xA0), *_SURROGATES]}


def printable(text: str) -> str:
    """The text without control characters other than newline and tab; lone surrogates become U+FFFD.

    Marks that turn the direction of writing are taken out too.

    Works character by character, so it may be applied to pieces of a text.
    """
    return text.translate(_HARMLESS)


def printable_json(text: str) -> str:
    """The JSON text with the control characters that JSON itself allows raw written as escapes."""
    return text.translate(_ESCAPED)


def first_line(text: str, longest: int) -> str:
    """The first line of the text; an ellipsis tells that it is cut, or that lines follow."""
    line, _, more = text.strip().partition("\n")
    return shortened(line, longest) if len(line) > longest else line + "…" * bool(more)
