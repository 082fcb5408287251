"""Ask a running daemon something, over its Unix socket; for commands, so without asyncio."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError, NotPermitted, NotRunning

_SECONDS = 10.0


def control(path: Path, verb: str, args: Mapping[str, Any] | None = None) -> Any:
    """Carry out an operator's verb and return its data.

    Raises `NotRunning` where nobody listens, `NotPermitted` where this user may not, and `GatewayError` with
    the daemon's own sentence where it refuses.
    """
    # Not the default session, which would be opened, and so kept from the archive, each time somebody looks.
    hello = {"type": "hello", "protocol": 1, "client": "lunar", "session": "_control"}
    asked = {"type": "control", "id": "c1", "verb": verb, "args": args or {}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(f"No gateway is running here ({path}). Start it with: lunar run") from None
        except PermissionError:
            raise NotPermitted(f"This user may not use the gateway's socket {path}.") from None
        except OSError as error:
            raise NotRunning(
                f"The gateway's socket {path} cannot be used: {error.strerror or error}."
            ) from error
        try:
            connection.sendall(b"".join(json.dumps(frame).encode() + b"\n" for frame in (hello, asked)))
            with connection.makefile("rb") as lines:
                return _answer(lines)
        except OSError as error:
            raise NotRunning(f"The gateway at {path} does not answer: {error.strerror or error}.") from error


def _answer(lines: Iterable[bytes]) -> Any:
    for line in lines:
        match _frame(line):
            case {"type": "result", "data": data}:
                return data
            case {"type": "error", "code": "not_allowed", "message": str(message)}:
                raise NotPermitted(message)
            case {"type": "error", "message": str(message)}:
                raise GatewayError(message)
            case {"type": str()}:
                continue
        raise NotRunning("What answers on the socket is no gateway.")
    raise NotRunning("The gateway closed the connection without an answer.")


def _frame(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
