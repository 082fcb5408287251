"""Which file is the configuration; cheap to import, as every command looks for it."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.errors import ConfigError


def find(explicit: str | None) -> Path | None:
    """The configuration file to use; None for the built-in defaults.

    Raises `ConfigError` where one was asked for that does not exist.
    """
    asked = explicit or os.environ.get("LUNAR_CONFIG")
    if asked:
        if not os.path.isfile(asked):
            where = "--config" if explicit else "$LUNAR_CONFIG"
            raise ConfigError([f"{asked}: there is no such file ({where} names it)"])
        return Path(asked)
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    places = ("config.yaml", f"{home}/lunar/config.yaml", "/etc/lunar/config.yaml")
    # os.path, not pathlib: a home that nobody knows, or may not be looked into, is no error here.
    return next((Path(place) for place in map(os.path.expanduser, places) if os.path.isfile(place)), None)
