"""How a person is told what a tool would be run with."""

from __future__ import annotations

import json
from typing import Any

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def arguments(args: Any, longest: int) -> str:
    """The arguments as one line of JSON; whatever cannot be seen, or turns the writing round, is escaped.

    Only a line of more than `longest` characters is not whole, and says so at its end.
    """
    text = args if isinstance(args, str) else json.dumps(args, ensure_ascii=False)
    shown = "".join(character if character.isprintable() else _escaped(character) for character in text)
    if len(shown) <= longest:
        return shown
    return f"{shown[:longest]}… (cut: {len(shown)} characters in all)"


def _escaped(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
