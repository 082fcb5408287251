"""`lunar pairing`: who may talk to the running gateway's bot."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from gateway import ask, config_socket
from gateway.verbs.sessions.printing import printable


def list_(config: str | None, as_json: bool) -> int:
    """Print who waits with a code, and who was let in; raises `NotRunning`, `GatewayError`."""
    data = _ask(config, {})
    if as_json:
        print(json.dumps(data, indent=2))
        return 0
    for one in data["waiting"]:
        print(
            f"waiting   {one['code']}  {one['peer']}  {printable(one['name'])}  until {_time(one['expires'])}"
        )
    for one in data["approved"]:
        print(f"approved  {one['peer']}  {printable(one['name'])}  since {_time(one['since'])}")
    if not data["waiting"] and not data["approved"]:
        print("Nobody has asked yet. Whoever writes to the bot is told a code.")
    return 0


def approve(config: str | None, code: str) -> int:
    """Let in whoever was told this code."""
    answer = _ask(config, {"approve": code})
    print(answer["said"])
    return 0 if answer["approved"] else 1


def revoke(config: str | None, peer: str) -> int:
    """Let a peer in no more."""
    revoked = _ask(config, {"revoke": peer})["revoked"]
    print(f"{peer} may talk no more." if revoked else f"{peer} was not let in.")
    return 0 if revoked else 1


def _ask(config: str | None, args: dict[str, str]) -> Any:
    return ask.control(config_socket.find(config), "pairing", args)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
