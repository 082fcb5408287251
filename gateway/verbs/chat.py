"""`lunar chat`: a terminal as a channel."""

from __future__ import annotations

import os
from pathlib import Path

from channels.cli import client
from gateway import config_file


def main(config: str | None, socket: str | None, text: str | None, session: str, as_json: bool) -> int:
    """Talk to a running daemon; returns the exit code. Raises `ConfigError`."""
    path = Path(socket) if socket else config_file.load(config).socket
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "lunar"
    return client.chat(
        client.Target(socket=path), text=text, session=session, as_json=as_json, state_dir=state
    )
