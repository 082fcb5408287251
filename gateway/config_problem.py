"""What is said about a wrong configuration: where it is written, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from gateway.config import Config
from gateway.redaction import Redactor

PREFIX = "LUNAR_"
SECRET_KEYS = {"api_key", "token", "bot_token"}
ANY = "<name>"  # stands for a name that people choose, such as an agent's

KeyPath = tuple[str | int, ...]

_LONGEST_SHOWN = 60
_MAY_HOLD_SECRETS = SECRET_KEYS | {"base_url", "store"}
_NAMED = re.compile(r"([a-z0-9_]+(?:\.[a-z0-9_]+)*): (.+)", re.DOTALL)

_MAPPING = "must be a mapping of keys"
_WORDS = {
    "model_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": "must be a list, such as [a, b]",
    "string_type": "must be a text",
    "path_type": "must be a path",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "missing": "must be given",
    "too_short": "must have an entry at least",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "ip_any_network": "must be an address or a network, such as 127.0.0.1 or 10.0.0.0/8",
    "string_pattern_mismatch": "must fit the pattern {pattern}",
    "invalid_key": "a key must be a text: put it in quotes",
}


class Places(NamedTuple):
    """Where each key was written: its line in the file, or the variable of the environment that set it."""

    file: Path | None
    lines: dict[KeyPath, int]
    variables: dict[KeyPath, str]

    def of(self, path: KeyPath) -> str:
        """Where `path` is, or would be, written; as near as that is known."""
        dotted = ".".join(map(str, path))
        for length in range(len(path), 0, -1):
            if variable := self.variables.get(path[:length]):
                return f"${variable} ({dotted})"
            if line := self.lines.get(path[:length]):
                return f"{self.file}:{line}: {dotted}"
        return f"{self.file}: {dotted}" if self.file else dotted

    def as_written(self, path: KeyPath) -> KeyPath:
        """The path in the person's own words: `model` for `models.default`, where they wrote that."""
        short = ("model",)
        wrote_short = any(known[:1] == short for known in (*self.lines, *self.variables))
        return (*short, *path[2:]) if wrote_short and path[:2] == ("models", "default") else path


NOWHERE = Places(None, {}, {})


def located(problem: str, places: Places) -> str:
    """A problem that begins with its key (`agents.main.model: …`), with the place of that key."""
    found = _NAMED.fullmatch(problem)
    if found is None or found[1].split(".")[0] not in known_keys(()):
        return problem
    return f"{places.of(places.as_written(tuple(found[1].split('.'))))}: {found[2]}"


def explained(details: list[ErrorDetails], places: Places) -> list[str]:
    """What pydantic found, a line each: the place, and a sentence that a newcomer understands."""
    problems: list[str] = []
    for _, branches in groupby(details, lambda detail: _split(detail["loc"])[0]):
        alternatives = list(branches)
        # Of a value that may be of several kinds, the kind counts that it was meant to be.
        meant = [detail for detail in alternatives if _split(detail["loc"])[1]] or alternatives
        lines = [_explained(detail, places) for detail in meant]
        problems += [_either(lines)] if len(lines) > 1 and meant is alternatives else lines
    return problems


def _split(path: KeyPath) -> tuple[KeyPath, KeyPath]:
    """A path up to a value that may be of several kinds, and from there on without the name of the kind."""
    for length in range(1, len(path)):
        if len(_kinds(annotation(path[:length]))) > 1:
            return path[:length], path[length + 1 :]
    return path, path[:0]


def _either(lines: list[str]) -> str:
    """`a: must be b, not x` and `a: must be c, not x` in one."""
    first, *others = [line.replace(": put it in quotes", "").partition(", not ") for line in lines]
    kinds = [line.partition(": must be ")[2] for line, _, _ in others]
    return "".join((" or ".join((first[0], *kinds)), *first[1:]))


def _explained(detail: ErrorDetails, places: Places) -> str:
    kind = detail["type"]
    start, end = _split(detail["loc"])
    path = places.as_written(tuple(part for part in (*start, *end) if part != "[key]"))
    if kind == "invalid_key":
        path = (*path[:-1], str(path[-1]))
    message = detail["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"{places.of(path)}: unknown key{_suggestion(path, places)}"
    if kind == "value_error" and (moved := located(message, places)) != message:
        return moved
    if kind == "string_pattern_mismatch" and "[key]" in detail["loc"]:
        return f"{places.of(path)}: a name may only have a-z, 0-9 and _"
    if words := _WORDS.get(kind):
        message = words.format_map({name: _plain(bound) for name, bound in detail.get("ctx", {}).items()})
    if kind == "string_type" and isinstance(detail["input"], bool | int | float):
        message += ": put it in quotes"
    elif message.startswith("must be") and kind != "missing":
        message += _instead(path, detail["input"])
    return f"{places.of(path)}: {message}" if path else message


def _plain(bound: Any) -> Any:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _instead(path: KeyPath, value: Any) -> str:
    """`, not <what was written>`; never anything that may be, or hold, a secret."""
    if not _MAY_HOLD_SECRETS.isdisjoint(path):
        return ""
    match value:
        case None:
            shown = "empty"
        case bool():
            shown = str(value).lower()
        case int() | float():
            shown = str(value) if abs(value) < 1e15 else "a number of that size"
        case str():
            shown = repr(value) if _harmless(path, value) else "this text"
        case list():
            shown = "a list"
        case dict():
            shown = "a mapping of keys"
        case _:
            return ""
    return f", not {shown}"


def _harmless(path: KeyPath, text: str) -> bool:
    # A text in the place of a whole section may be a secret that slipped a level: `model: sk-…`.
    section = known_keys(path) or get_origin(annotation(path)) is dict
    plain = "@" not in text and "sk-" not in text and Redactor().text(text) == text
    return not section and len(text) <= _LONGEST_SHOWN and plain


def _suggestion(path: KeyPath, places: Places) -> str:
    known, name = known_keys(path[:-1]), str(path[-1])
    if (variable := places.variables.get(path)) is not None:
        near = difflib.get_close_matches(variable, _variables(), 1, 0.8)
        return f"; did you mean {near[0]}?" if near else ""
    if near := difflib.get_close_matches(name, known, 1, 0.6):
        return f"; did you mean `{near[0]}`?"
    elsewhere = [".".join(key) for key in written() if key[-1] == name and key[0] != "models"]
    if elsewhere:
        return f"; did you mean `{elsewhere[0]}`?"
    return f"; known here: {', '.join(known)}" if known else ""


def _variables() -> list[str]:
    return [PREFIX + "__".join(key).replace(ANY, "main").upper() for key in written()]


def known_keys(path: KeyPath) -> list[str]:
    """The keys that the configuration knows below `path`, as people write them."""
    sections = [kind for kind in _kinds(annotation(path)) if _is_section(kind)]
    keys = [key for section in sections for key in section.model_fields]
    return [*keys, "model"] if sections == [Config] else keys


def written(path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that takes a value, in full, with `<name>` where people choose the name."""
    for key in known_keys(path):
        below = (*path, key)
        if get_origin(annotation(below)) is dict:
            below = (*below, ANY)
        if _is_section(annotation(below)):
            yield from written(below)
        else:
            yield below


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kinds(kind: Any) -> tuple[Any, ...]:
    """The kinds of value that it allows, besides null."""
    if get_origin(kind) not in (Union, UnionType):
        return (kind,)
    return tuple(one for one in get_args(kind) if one is not type(None))


def annotation(path: KeyPath) -> Any:
    """The type of what stands at `path`; None where nothing may stand."""
    section: Any = Config
    for part in ("models", "default", *path[1:]) if path[:1] == ("model",) else path:
        section = next((kind for kind in _kinds(section) if _is_section(kind)), section)
        if get_origin(section) is dict:
            section = get_args(section)[1]
        elif get_origin(section) is tuple:
            section = get_args(section)[0]
        elif _is_section(section):
            field = section.model_fields.get(str(part))
            section = field.annotation if field else None
        else:
            return None
    return section
