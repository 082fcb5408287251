"""The effective configuration, row by row: each key's value, and who said so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from gateway.config_file import Loaded
from gateway.config_leaves import MASK, dotted, leaves, plain
from gateway.config_problem import KeyPath, Places
from gateway.config_secrets import at, secrets
from gateway.log import Redactor

Kind = Literal["file", "environment", "credential", "default"]
_CREDENTIAL = "CREDENTIALS_DIRECTORY/"


class Row(NamedTuple):
    """One key. `value`: as in config.yaml, secrets masked; `place`: the line, variable or file of it."""

    key: str
    value: Any
    origin: Kind
    place: str


def rows(loaded: Loaded) -> Iterator[Row]:
    """Every key with its value."""
    redactor = Redactor(secrets(loaded.config))
    for path, value in leaves(loaded.config):
        written = loaded.places.as_written(path)
        kind, place = _origin(written, loaded)
        if path == ("channels", "cli", "socket"):
            value = loaded.config.socket  # null stands for a place that depends on others
        yield Row(dotted(path), _clean(plain(value), redactor), kind, place)


def _origin(path: KeyPath, loaded: Loaded) -> tuple[Kind, str]:
    if not _present(loaded.data, path):
        return "default", ""
    for length in range(len(path), 0, -1):
        if variable := loaded.places.variables.get(path[:length]):
            kind: Kind = "credential" if variable.startswith(_CREDENTIAL) else "environment"
            return kind, f"${variable}"
    match at(loaded.data, path):
        case {"env": str(name)}:
            return "environment", f"${name}"
        case {"credential": str(name)}:
            return "credential", f"${_CREDENTIAL}{name}"
    return "file", _line(path, loaded.places)


def _present(data: Any, path: KeyPath) -> bool:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def _line(path: KeyPath, places: Places) -> str:
    for length in range(len(path), 0, -1):
        if line := places.lines.get(path[:length]):
            return f"{places.file}:{line}"
    return str(places.file)


def _clean(value: Any, redactor: Redactor) -> Any:
    """A secret may have been written where none belongs, such as into a tool's command."""
    match value:
        case str():
            return redactor.text(value)
        case list():
            return [_clean(inner, redactor) for inner in value]
        case dict():
            return {name: _clean(inner, redactor) for name, inner in value.items()}
    return value


def shown(value: Any) -> str:
    """A value on one line, as it could stand in config.yaml."""
    if isinstance(value, str) and value.isprintable() and (value == MASK or value[:1] not in ("", *"[{'\"")):
        return value
    return json.dumps(value, ensure_ascii=False)
