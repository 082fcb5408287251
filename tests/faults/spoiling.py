"""Spoils what is valid: JSON by its structure, and anything by its bytes."""

from __future__ import annotations

import json
import random
from typing import Any

STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, 1e308, -0.0, "", "\0",
    "\ud800", "\ud83d\ude00", "\u202e", "x" * 300, "../../etc/passwd", "%2e%2e/", "é", "1", "null", [], {},
    [[]], {"": None}, [None], {"type": "hello"}, {"role": "user"}, "agent:main:cli:local", "/stop", "//",
    "\r\n", "\u2028",
]  # fmt: skip
BYTES = [
    b"\0", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\n", b"\r\n", b'"', b"\\u",
    b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"NaN", b"1e999", b"9" * 400, b"[" * 2000,
    b'{"a":' * 600, b"data: ", b"data: [DONE]", b"&a *a", b"!!python/object:os.system", b"? ", b"- ",
    b"<<: ", b"Content-Length: -1\r\n", b"\xef\xbb\xbf",
]  # fmt: skip


def spoiled(data: bytes, dice: random.Random) -> bytes:
    """The same with one to four things wrong; now and then nothing."""
    for _ in range(dice.choice((0, 1, 1, 1, 2, 4))):
        data = (_structure if dice.random() < 0.6 else _bytes)(data, dice)
    return data


def _structure(data: bytes, dice: random.Random) -> bytes:
    """Spoil one of the JSON values that the data has, one on a line, with anything before it."""
    lines = data.split(b"\n")
    index = dice.randrange(len(lines))
    brace = lines[index].find(b"{")
    try:
        value = json.loads(lines[index][brace:]) if brace >= 0 else None
    except (ValueError, RecursionError):
        value = None
    if value is None:
        return _bytes(data, dice)
    spoilt = json.dumps(strange(value, dice), ensure_ascii=dice.random() < 0.5, separators=(",", ":"))
    lines[index] = lines[index][:brace] + spoilt.encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def strange(value: Any, dice: random.Random) -> Any:
    """A JSON value with one thing in it that is not as it was, and is still JSON."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        name = dice.choice(sorted(value))
        match dice.randrange(6):
            case 0:
                return {key: member for key, member in value.items() if key != name}
            case 1:
                return {**value, str(dice.choice(STRANGE)): dice.choice(STRANGE)}
            case 2:
                return {**value, name: [value[name]] * dice.choice((0, 1, 2, 50))}
            case 3:
                return {key if key != name else str(dice.choice(STRANGE)): one for key, one in value.items()}
            case _:
                return {**value, name: strange(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], strange(value[place], dice), *value[place + dice.randrange(2) :]]
    if isinstance(value, str) and dice.random() < 0.5:
        place = dice.randrange(len(value) + 1)
        return value[:place] + str(dice.choice(STRANGE)) + value[place:]
    return dice.choice(STRANGE)


def _bytes(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data) + 1)
    end = min(len(data), start + dice.choice((0, 1, 1, 4, 30)))
    match dice.randrange(5):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:start] + dice.choice(BYTES) + data[end:]
        case 3:
            return data[:start] + data[start:end] * dice.choice((2, 3, 100)) + data[end:]
        case _:
            return data[:start] + dice.randbytes(end - start) + data[end:]
