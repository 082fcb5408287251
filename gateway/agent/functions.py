"""The configured Python functions as tools: each call has a process of its own, which ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import structlog

import gateway
from gateway.agent import leash
from gateway.agent.child import Child
from gateway.agent.tools import MAX_OUTPUT, PATIENCE, Tool, ToolError, ToolFailed, cut
from gateway.config import Function
from gateway.redaction import known
from session.ids import SessionId

log = structlog.get_logger(__name__)

_ROOT = Path(gateway.__file__).parents[1]  # where the process finds us, however we were started
_DESCRIBING = 60.0  # seconds
_LOGGED = 2 * 1024  # characters of what a function prints
_MORE = 4 * 1024  # bytes that are read beyond what is shown: half a secret could not be masked
_LAST_WORDS = 1.0  # seconds
_AT_ONCE = 2  # functions that are described at a time


class Functions:
    """A `ToolSource`. `start` finds out, in the background, what each function takes."""

    def __init__(
        self, settings: Mapping[str, Function], environment: Mapping[str, str], faults: dict[str, str]
    ) -> None:
        self._faults = faults  # where it is told why a function cannot be called
        self._settings = settings
        self._environment = {**environment, "PYTHONPATH": _path(environment)}
        self._tools: dict[str, Tool] = {}
        self._describing: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()  # all functions were looked at, or should have been by now

    def start(self) -> None:
        """Begin to look at the functions."""
        self._describing = asyncio.create_task(self._describe_all(), name="functions")
        asyncio.get_running_loop().call_later(PATIENCE, self._looked.set)

    async def stop(self) -> None:
        """Stop looking; calls end with their turns."""
        if self._describing:
            self._describing.cancel()
            await asyncio.wait({self._describing})

    def tools(self) -> Sequence[Tool]:
        """Those that can be called now."""
        return list(self._tools.values())

    def repeatable(self, name: str) -> bool:
        """Whether a call that a crash broke off may be made again; known before anything is started."""
        return name in self._settings and self._settings[name].idempotent

    @property
    def states(self) -> dict[str, str]:
        """`ready`, `starting`, or why it cannot be called, by name."""
        return {
            name: self._faults.get(_label(name)) or ("ready" if name in self._tools else "starting")
            for name in self._settings
        }

    async def ready(self, session: SessionId) -> None:
        """Wait until all functions were looked at, or could have been."""
        await self._looked.wait()

    async def described(self) -> None:
        """Wait until all functions were looked at, however long that takes."""
        if self._describing:
            await asyncio.wait({self._describing})

    async def _describe_all(self) -> None:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def describe(name: str, settings: Function) -> None:
            async with slots:
                try:
                    self._tools[name] = await self._described(name, settings)
                except (ToolError, ToolFailed, TimeoutError, ValueError, OSError) as error:
                    why = str(error) or f"took longer than {_DESCRIBING:g} seconds to load"
                    self._faults[_label(name)] = why
                    log.warning("a function cannot be a tool", function=name, why=why)

        await asyncio.gather(*(describe(name, settings) for name, settings in self._settings.items()))
        self._looked.set()

    async def _described(self, name: str, settings: Function) -> Tool:
        async with asyncio.timeout(_DESCRIBING):
            about = json.loads(await self._run(name, {"call": settings.call}))

        async def run(**args: Any) -> str:
            return await self._run(name, {"call": settings.call, "args": args})

        return Tool(
            name,
            about["description"],
            about["parameters"],
            run,
            timeout=settings.timeout.total_seconds(),
            ask=settings.ask,
            idempotent=settings.idempotent,
        )

    async def _run(self, name: str, request: dict[str, Any]) -> str:
        """One process for one request, of which nothing is left; raises `ToolError` or `ToolFailed`."""
        transport, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: Child(printed=MAX_OUTPUT + _MORE, logged=_LOGGED + _MORE),
            sys.executable, "-m", "gateway.agent.tool_process", str(os.getpid()),
            env=self._environment, start_new_session=True,
        )  # fmt: skip
        stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))  # uvloop's does not say so
        try:
            stdin.write(json.dumps(request).encode())
            stdin.close()
            await child.printed.ended.wait()
        finally:
            leash.kill(transport.get_pid())
            try:
                # Bounded: what has left the group may hold its pipes for ever.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(child.over.wait(), _LAST_WORDS)
            finally:
                transport.close()
            if said := bytes(child.logged.data):
                text = known.beginning(said.decode("utf-8", "replace"), _LOGGED)
                log.debug("a function printed", function=name, text=text)
        return _result(bytes(child.printed.data), child.printed.size)


def _label(name: str) -> str:
    return f"tools.functions.{name}"


def _result(answer: bytes, size: int) -> str:
    outcome, newline, raw = answer.partition(b"\n")
    whole = size - len(outcome) - len(newline)
    text = known.ours(raw.decode("utf-8", "replace")).encode()
    match outcome:
        case b"ok":
            return cut(text, whole)
        case b"misused":
            raise ToolError(cut(text, whole))
        case b"failed":
            raise ToolFailed(cut(text, whole))
    raise ToolFailed("its process ended without an answer")


def _path(environment: Mapping[str, str]) -> str:
    return os.pathsep.join([str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])])
