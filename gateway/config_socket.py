"""Where the running gateway's socket is: to be found also while the configuration is wrong.

Whoever has just spoilt the file wants to ask the gateway how it is, and it goes on with the last good one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from channels.cli.address import SocketPathTooLong, socket_path
from gateway import config_place
from gateway.errors import ConfigError

_VALUE = r"""\s*["']?([^"'#\n]+?)["']?\s*(?:#.*)?$"""
_DATA_DIR = re.compile(r"^data_dir:" + _VALUE, re.MULTILINE)
_SOCKET = re.compile(r"^\s+socket:" + _VALUE, re.MULTILINE)


def find(explicit: str | None) -> Path:
    """The socket's path; raises `ConfigError` where the configuration is wrong and nothing is there.

    Where the configuration names none and none is at the default place, a systemd service's counts.
    """
    file = config_place.find(explicit)
    # Checking the configuration costs more than all the rest of a command: it is done where there is need.
    if (seen := _at_first_sight(file)) and seen.is_socket():
        return seen
    from gateway import config_file

    try:
        config = config_file.resolve(config_file.read(file))
        usual = config.socket
        if config.channels.cli.socket or usual.is_socket():
            return usual
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        of_services = (Path(folder, "lunar-gateway.sock") for folder in (runtime, "/run"))
        return next((path for path in of_services if path.is_socket()), usual)
    except ConfigError:
        path = _guessed(file, _written(file))
        if path is None or not path.is_socket():
            raise
        return path


def _at_first_sight(file: Path | None) -> Path | None:
    """The socket of a file that writes its keys in the usual way, a line each; None of any other."""
    text = re.sub(r"#.*", "", _raw(file))
    written = len(_DATA_DIR.findall(text)) + len(_SOCKET.findall(text))
    plain = written == len(re.findall(r"\b(?:data_dir|socket)\b", text))
    return _guessed(file, _told(text)) if plain else None


def _guessed(file: Path | None, written: tuple[str, str | None]) -> Path | None:
    data_dir, socket = written
    base = file.resolve().parent if file else Path.cwd()
    place = Path(os.path.abspath(base / os.path.expanduser(os.environ.get("LUNAR_DATA_DIR") or data_dir)))
    named = os.environ.get("LUNAR_CHANNELS__CLI__SOCKET") or socket
    try:
        return socket_path(Path(os.path.abspath(base / os.path.expanduser(named))) if named else None, place)
    except SocketPathTooLong:
        return None


def _written(file: Path | None) -> tuple[str, str | None]:
    """What the file says of `data_dir` and `channels.cli.socket`, as well as that can be told."""
    from gateway import config_file

    try:
        match config_file.read(file).data:
            case {"channels": {"cli": {"socket": str(socket)}}, **rest}:
                return _text(rest.get("data_dir")), socket
            case data:
                return _text(data.get("data_dir")), None
    except ConfigError:  # it is no YAML at all
        return _told(_raw(file))


def _raw(file: Path | None) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace") if file else ""
    except OSError:
        return ""


def _told(text: str) -> tuple[str, str | None]:
    place, named = _DATA_DIR.search(text), _SOCKET.search(text)
    return place[1] if place else "./data", named[1] if named and named[1] not in ("null", "~") else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "./data"
