"""The gateway with a defect in every kind of place, each of which tells all secrets that it was given.

Run as `python -m tests.gateway.blabbing run …`. The defects are put in from outside and wait for their cue:
the word CUE in a message, in an address or in the configuration's file. Nothing waits long here, and the
model that is named `silent` has no time at all to answer.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import os
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

CUE = "kingfisher"
_LONGEST_PAUSE = 0.02  # seconds


def secrets() -> list[str]:
    return [value for name, value in os.environ.items() if name.startswith("C_")]


def boom() -> None:
    """Raise what tells every secret: in its text, its arguments, its notes, its cause and its companions."""
    told = secrets()
    group = ExceptionGroup("several of " + told[0], [OSError(5, told[1], told[2]), KeyError(told[3])])
    error = RuntimeError(" ".join(told), {told[0]: told}, told[1].encode())
    error.add_note("and by the way: " + " ".join(told))
    raise error from group


async def boom_later() -> None:
    boom()


def boom_around() -> None:
    """Everything that breaks where nobody waits for it, and the libraries' own ways to say so."""

    class Broken:
        def __del__(self) -> None:
            boom()

    Broken()
    thread = threading.Thread(target=boom)
    thread.start()
    thread.join()
    loop = asyncio.get_running_loop()
    loop.call_soon(boom)
    loop.create_task(boom_later()).add_done_callback(lambda _: loop.call_soon(gc.collect))
    warnings.warn(" ".join(secrets()), stacklevel=1)
    foreign = logging.getLogger("some.library")
    foreign.debug("GET %s", "/?" + "&".join(secrets()), extra={"headers": secrets()})
    try:
        boom()
    except RuntimeError:
        foreign.exception("failed with %r", secrets(), stack_info=True)


def _wrapped(owner: Any, name: str, cued: Callable[..., bool], defect: Callable[[], None] = boom) -> None:
    """Let a method run into the defect where its arguments hold the cue."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def plain(*args: Any, **more: Any) -> Any:
        if cued(*args, **more):
            defect()
        return real(*args, **more)

    @functools.wraps(real)
    async def coroutine(*args: Any, **more: Any) -> Any:
        return await plain(*args, **more)

    setattr(owner, name, coroutine if inspect.iscoroutinefunction(real) else plain)


def _briefly(owner: type) -> None:
    """Let it wait, by its default `sleep`, for no time worth the name."""
    made = owner.__init__  # type: ignore[misc] # it is no subclass's
    assert inspect.signature(made).parameters["sleep"].default is asyncio.sleep
    owner.__init__ = functools.partialmethod(made, sleep=_brief)  # type: ignore[misc] # on purpose


async def _brief(seconds: float) -> None:
    await asyncio.sleep(min(seconds, _LONGEST_PAUSE))


def _break_turns() -> None:
    from gateway.agent.runner import AgentRunner
    from gateway.turn import Ask

    real = AgentRunner.run

    async def run(self: AgentRunner, ask: Ask) -> AsyncGenerator[Any]:
        async for item in real(self, ask):
            yield item
            if CUE in ask.current.messages[-1].content:
                boom()

    AgentRunner.run = run  # type: ignore[method-assign] # on purpose


def _hurry() -> None:
    from channels.telegram.channel import TelegramChannel
    from gateway.agent import retries
    from gateway.agent.endpoint import Limits
    from gateway.agent.model import Model
    from gateway.supervise import Supervisor

    retries._FIRST = retries._JITTER = _LONGEST_PAUSE
    for owner in (TelegramChannel, Supervisor, Model):
        _briefly(owner)
    real = Model.ask

    def ask(self: Model, messages: Any, tools: Any, limits: Limits | None = None) -> AsyncGenerator[Any]:
        hasty = Limits(tries=2, first_chunk=_LONGEST_PAUSE)
        return real(self, messages, tools, hasty if self.label == "silent" else limits)

    Model.ask = ask  # type: ignore[method-assign] # on purpose


def plant() -> None:
    """Put the defects in."""
    from channels.telegram.channel import TelegramChannel
    from gateway.http import HttpChannel
    from gateway.seat import Seat
    from gateway.verbs import run

    _hurry()
    _break_turns()
    _wrapped(HttpChannel, "_live", lambda self, request: CUE in request.query_string)
    _wrapped(HttpChannel, "_ready", lambda self, request: CUE in request.query_string, boom_around)
    _wrapped(Seat, "submit", lambda self, id, *rest, **more: CUE in id)
    starts = iter([True])
    _wrapped(TelegramChannel, "_intake", lambda *args: next(starts, False))
    _wrapped(run.config_file, "settle", lambda source: CUE in _written(source.places.file))
    if os.environ.get("BREAK") == "start":
        _wrapped(run.Daemon, "_start", lambda self: True)


def _written(file: Path | None) -> str:
    return file.read_text(encoding="utf-8") if file else ""


if __name__ == "__main__":
    plant()
    from gateway.__main__ import main

    sys.exit(main())
