"""The secrets of the configuration: where they come from by themselves, and where they must not stand."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from pydantic import SecretStr

from gateway.config import Config
from gateway.config_leaves import leaves
from gateway.config_problem import SECRET_KEYS, KeyPath, Places
from gateway.config_values import credential

# What others use as well, and the key that each fills where the file leaves it out.
_AMBIENT: dict[str, KeyPath] = {
    "LUNAR_HTTP_TOKEN": ("http", "token"),
    "LUNAR_STORE_URL": ("store", "url"),
    "OPENAI_API_KEY": ("models", "default", "api_key"),
    "OPENAI_BASE_URL": ("models", "default", "base_url"),
    "TELEGRAM_BOT_TOKEN": ("channels", "telegram", "bot_token"),
}
_WITH_PASSWORD = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s]*@")
CREDENTIALS = tuple(name.lower() for name in _AMBIENT)  # as files in $CREDENTIALS_DIRECTORY


def filled(data: dict[str, Any]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """Fill what the file leaves out from the environment or the credentials directory.

    Returns the data, and for each key the variable or the credential's file that gave it.
    """
    given: dict[KeyPath, str] = {}
    for name, path in _AMBIENT.items():
        if path[0] == "models" and "model" in data:
            path = ("model", *path[2:])
        found, place = _ambient(name)
        if found and at(data, path) in (None, ""):
            data = _with(data, path, found if path[-1] == "base_url" else SecretStr(found))
            given[path] = place
    return data, given


def _ambient(name: str) -> tuple[str | None, str]:
    if told := (os.environ.get(name) or "").strip():
        return told, name
    return credential(name.lower()), f"CREDENTIALS_DIRECTORY/{name.lower()}"


def _with(data: Any, path: KeyPath, value: Any) -> Any:
    """The data with one more key; a section that is no mapping stays as it is, to be complained about."""
    if not path:
        return value
    if not isinstance(data, dict | None):
        return data
    section = data or {}
    return {**section, path[0]: _with(section.get(path[0]), path[1:], value)}


def held(config: Config) -> list[tuple[KeyPath, str]]:
    """Every secret that the configuration holds, with its key."""
    values = leaves(config)
    return [(path, value.get_secret_value()) for path, value in values if isinstance(value, SecretStr)]


def secrets(config: Config) -> list[str]:
    """The same without the keys, for the log to mask, and addresses that have a password in them."""
    texts = [value for _, value in leaves(config) if isinstance(value, str)]
    return [*(secret for _, secret in held(config)), *filter(_WITH_PASSWORD.match, texts)]


def exposed(data: dict[str, Any], places: Places) -> list[str]:
    """A problem for each secret that stands in a file which others can read."""
    file = places.file
    if file is None or not file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return []
    return [
        f"{places.of(path)}: others can read this file, and it holds a secret; run: chmod 600 {file}"
        for path in places.lines
        if _secret_key(path) and path not in places.variables
        if isinstance(value := at(data, path), str) and value.strip()
    ]


def _secret_key(path: KeyPath) -> bool:
    if path[:2] == ("tools", "mcp"):
        return len(path) == 5 and path[3] in (
            "env",
            "headers",
        )  # and not the `env` of an {env: NAME} below it
    return path[-1] in SECRET_KEYS or path == ("store", "url")


def at(data: Any, path: KeyPath) -> Any:
    """What stands in the data at `path`; None where there is nothing."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
