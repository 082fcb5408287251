"""The gateway with places at which it fails: run as `python -m tests.faults.crashing run …`.

Every durable step (a write, a sync, a rename, … that one of our modules makes) and every send (a frame, a
call of Telegram's, a request to a model, a tool) is two places: before it and behind it. They are wrapped
from outside, so that the product has no hook of it. With FAILPOINT=`N:ACTION` the N-th place that is reached,
counted over all, ends the process at once (`exit`, status 137), raises `OSError` (`raise`) or lets its thread
hang (`hang`). FAILPOINT_LOG names a file that gets the name of each place.
"""

from __future__ import annotations

import errno
import functools
import inspect
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / package) + os.sep for package in ("session", "channels", "gateway"))
STATUS = 137
STEPS = ("write", "fdatasync", "fsync", "rename", "replace", "ftruncate", "unlink")


class Places:
    """Counts the places and acts at one of them; they are reached from several threads."""

    def __init__(self, spec: str, log: str | None) -> None:
        number, _, self._action = spec.partition(":")
        self._wanted = int(number)
        self._count = itertools.count(1)
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if log else None
        self._write = os.write  # before it is wrapped

    def reach(self, name: str) -> None:
        here = next(self._count)
        if self._log is not None:
            self._write(self._log, f"{name}\n".encode())
        if here != self._wanted:
            return
        match self._action:
            case "exit":
                os._exit(STATUS)
            case "raise":
                raise OSError(errno.EIO, f"failpoint {name}")
            case "hang":
                while True:
                    time.sleep(3600)


def _step(places: Places, name: str) -> None:
    """Wrap a function of `os`, where one of our modules calls it."""
    real = getattr(os, name)

    @functools.wraps(real)
    def wrapped(*args: Any, **more: Any) -> Any:
        caller = sys._getframe(1).f_code
        if not caller.co_filename.startswith(OURS):
            return real(*args, **more)
        place = f"{Path(caller.co_filename).relative_to(ROOT)}:{caller.co_qualname}:{name}"
        places.reach(f"before {place}")
        done = real(*args, **more)
        places.reach(f"behind {place}")
        return done

    setattr(os, name, wrapped)


def _send(places: Places, owner: type, name: str) -> None:
    """Wrap a method that sends something to somebody."""
    real: Callable[..., Any] = getattr(owner, name)
    assert inspect.iscoroutinefunction(real), f"{owner.__name__}.{name} is no coroutine function"
    place = f"{owner.__module__}.{owner.__name__}.{name}"

    @functools.wraps(real)
    async def wrapped(*args: Any, **more: Any) -> Any:
        places.reach(f"before {place}")
        done = await real(*args, **more)
        places.reach(f"behind {place}")
        return done

    setattr(owner, name, wrapped)


def arm(spec: str, log: str | None) -> None:
    """Wrap everything; the libraries that this imports are those that the gateway would import later."""
    from channels.cli.server import _Lines
    from channels.telegram.polling import Poller
    from channels.telegram.sending import Sending
    from channels.webchat.websocket import WebSocket
    from gateway.agent.model import Model
    from gateway.agent.tools import Toolbox

    places = Places(spec, log)
    for name in STEPS:
        _step(places, name)
    for owner, method in (
        (_Lines, "send"),
        (WebSocket, "send"),
        (Poller, "_ask"),
        (Sending, "_undisturbed"),
        (Model, "_sent"),
        (Toolbox, "call"),
    ):
        _send(places, owner, method)


if __name__ == "__main__":
    if found := os.environ.get("FAILPOINT"):
        arm(found, os.environ.get("FAILPOINT_LOG"))
    from gateway.__main__ import main

    sys.exit(main())
