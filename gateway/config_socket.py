"""Where the running gateway's socket is: to be found also while the configuration is wrong.

Whoever has just spoilt the file wants to ask the gateway how it is, and it goes on with the last good one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from channels.cli.address import SocketPathTooLong, socket_path
from gateway import config_file
from gateway.errors import ConfigError

_VALUE = r"""\s*["']?([^"'#\n]+?)["']?\s*(?:#.*)?$"""
_DATA_DIR = re.compile(r"^data_dir:" + _VALUE, re.MULTILINE)
_SOCKET = re.compile(r"^\s+socket:" + _VALUE, re.MULTILINE)


def find(explicit: str | None) -> Path:
    """The socket's path; raises `ConfigError` where the configuration is wrong and nothing is there.

    Where the configuration names none and none is at the default place, a systemd service's counts.
    """
    try:
        config = config_file.load(explicit)
        usual = config.socket
        if config.channels.cli.socket or usual.is_socket():
            return usual
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        of_services = (Path(folder, "lunar-gateway.sock") for folder in (runtime, "/run"))
        return next((path for path in of_services if path.is_socket()), usual)
    except ConfigError:
        file = config_file.find(explicit)
        path = _guessed(file)
        if path is None or not path.is_socket():
            raise
        return path


def _guessed(file: Path | None) -> Path | None:
    data_dir, socket = _written(file)
    base = file.resolve().parent if file else Path.cwd()
    place = Path(os.path.abspath(base / os.path.expanduser(os.environ.get("LUNAR_DATA_DIR") or data_dir)))
    named = os.environ.get("LUNAR_CHANNELS__CLI__SOCKET") or socket
    try:
        return socket_path(Path(os.path.abspath(base / os.path.expanduser(named))) if named else None, place)
    except SocketPathTooLong:
        return None


def _written(file: Path | None) -> tuple[str, str | None]:
    """What the file says of `data_dir` and `channels.cli.socket`, as well as that can be told."""
    try:
        match config_file.read(file).data:
            case {"channels": {"cli": {"socket": str(socket)}}, **rest}:
                return _text(rest.get("data_dir")), socket
            case data:
                return _text(data.get("data_dir")), None
    except ConfigError:  # it is no YAML at all
        try:
            text = file.read_text(encoding="utf-8", errors="replace") if file else ""
        except OSError:
            text = ""
    place, named = _DATA_DIR.search(text), _SOCKET.search(text)
    return place[1] if place else "./data", named[1] if named and named[1] not in ("null", "~") else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "./data"
