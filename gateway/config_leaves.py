"""The configuration as rows: every value with its key, and what of it may be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from gateway.config_problem import KeyPath

MASK = "[secret]"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value below `value`, with its path; an empty mapping and a list count as one value."""
    match value:
        case BaseModel():
            for name in type(value).model_fields:
                yield from leaves(getattr(value, name), (*path, name))
        case dict() if value:
            for name, inner in value.items():
                yield from leaves(inner, (*path, name))
        case _:
            yield path, value


def dotted(path: KeyPath) -> str:
    """The path as people write it, such as `agents.main.model`."""
    return ".".join(map(str, path))


def plain(value: Any) -> Any:
    """A value as it would stand in config.yaml, of JSON's types alone; a secret is masked."""
    match value:
        case None | bool() | int() | float():
            return value
        case SecretStr():
            return MASK
        case timedelta():
            return _duration(value)
        case str():
            return _without_password(value)
        case BaseModel():
            return {name: plain(getattr(value, name)) for name in type(value).model_fields}
        case dict():
            return {str(name): plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case Path():
            return str(value)
    return str(value)  # an address or a network


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for size, unit in _UNITS:
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{round(seconds * 1000)}ms" if seconds else "0s"


def _without_password(text: str) -> str:
    """A URL may carry a name and a password before its host."""
    if "@" not in text or "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return MASK
    if parts.username is None and parts.password is None:
        return text
    return parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}").geturl()


S = TypeVar("S", bound=BaseModel)


def replaced(section: S, path: Sequence[str], other: S) -> S:
    """The section with the one value at `path` that another section of its kind has."""
    name, *below = path
    value = getattr(other, name)
    return section.model_copy(
        update={name: replaced(getattr(section, name), below, value) if below else value}
    )
