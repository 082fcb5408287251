"""`lunar chat`: a terminal as a channel."""

from __future__ import annotations

import os
from pathlib import Path

from channels.cli import client
from channels.cli.client import Target
from gateway import config_socket
from gateway.errors import ConfigError


def target(config: str | None, socket: str | None, url: str | None, token_file: str | None) -> Target:
    """Which gateway is meant: the one at `url`, else the one on this machine. Raises `ConfigError`."""
    if url is not None:
        return Target(socket=None, url=url, token=_token(token_file))
    return Target(socket=Path(socket) if socket else config_socket.find(config))


def _token(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("LUNAR_HTTP_TOKEN")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--token-file {file}: cannot be read: {error}"]) from error


def main(target: Target, text: str | None, session: str, as_json: bool) -> int:
    """Talk to a running daemon; returns the exit code."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "lunar"
    return client.chat(target, text=text, session=session, as_json=as_json, state_dir=state)
