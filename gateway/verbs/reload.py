"""`lunar reload`: let the running gateway read its configuration again."""

from __future__ import annotations

import json

from gateway import ask, config_socket
from gateway.config_origin import shown
from gateway.errors import ConfigError


def main(config: str | None, as_json: bool) -> int:
    """Print what changed and what waits for a restart; raises `ConfigError`, `NotRunning`, `GatewayError`.

    `config` only says where the gateway is: it reads the file that it was started with.
    """
    data = ask.control(config_socket.find(config), "reload")
    if data["problems"]:
        raise ConfigError([*data["problems"], "Nothing was changed; the last good configuration is in use."])
    if as_json:
        print(json.dumps(data, indent=2))
        return 0
    for change in data["changed"]:
        print(f"{change['key']}: {shown(change['before'])} → {shown(change['after'])}")
    for key in data["waiting"]:
        print(f"{key} waits for a restart")
    if not data["changed"] and not data["waiting"]:
        print("Nothing has changed.")
    return 0
