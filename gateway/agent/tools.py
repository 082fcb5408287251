"""Tools as a table: what a model may call, and how a call is carried out."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import structlog

from gateway import redaction
from session.ids import SessionId

log = structlog.get_logger(__name__)

MAX_OUTPUT = 64 * 1024  # bytes of a result that the model sees
_TIMEOUT = 60.0  # seconds
_DEEPEST = 100  # objects and lists within each other in a call's arguments
PATIENCE = 3.0  # seconds after its start in which turns wait for a tool source that is not ready yet


class Scope(NamedTuple):
    """Whose call it is: all that a tool may know of where it runs."""

    session: SessionId
    turn: str
    call_id: str


class Tool(NamedTuple):
    """One tool. `parameters` is a JSON Schema object; `run` gets them as keywords and returns text.

    `scoped`: `run` gets the call's `Scope` as its first argument. `ask`: the person must allow each call.
    `idempotent`: a call that a crash broke off may be made again.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    run: Callable[..., Awaitable[str] | str]
    timeout: float = _TIMEOUT
    scoped: bool = False
    ask: bool = False
    idempotent: bool = False

    def given(self, scope: Scope) -> tuple[Scope, ...]:
        """What `run` gets besides the model's arguments."""
        return (scope,) if self.scoped else ()


class Outcome(NamedTuple):
    """What a call came to; `misused` where the model called it wrongly (and may try again)."""

    ok: bool
    text: str
    misused: bool = False


class ToolError(Exception):
    """A tool refuses its arguments; the text tells the model what to do."""


class ToolFailed(Exception):
    """A tool could not do it; the text is for the model."""


class ToolSource(Protocol):
    """Where tools come from that are not there from the beginning, and may go away."""

    def tools(self) -> Sequence[Tool]:
        """Those that can be called now."""

    def repeatable(self, name: str) -> bool:
        """Whether a call of this name that a crash broke off may be made again, be the tool there or not."""

    async def ready(self, session: SessionId) -> None:
        """A turn of this session begins: wait, briefly, for what is still being started."""


class Toolbox:
    """The tools of one agent: those given, and of the sources those that it is allowed."""

    def __init__(
        self,
        tools: Iterable[Tool] = (),
        sources: Sequence[ToolSource] = (),
        allowed: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self._given = {tool.name: tool for tool in tools}
        self._sources = sources
        self._allowed = allowed

    @property
    def _tools(self) -> dict[str, Tool]:
        """By name; where two have the same, the earlier source's."""
        found = dict(self._given)
        for source in self._sources:
            for tool in source.tools():
                if tool.name not in found and self._allowed(tool.name):
                    found[tool.name] = tool
        return found

    async def ready(self, session: SessionId) -> None:
        """A turn of this session begins: wait, briefly, for tools that are still being started."""
        for source in self._sources:
            await source.ready(session)

    def schemas(self) -> list[dict[str, Any]]:
        """The `tools` member of a Chat Completions request."""
        return [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": t.parameters},
            }
            for t in self._tools.values()
        ]

    def asks(self, name: str) -> bool:
        """Whether the person must allow a call of this tool."""
        return (tool := self._tools.get(name)) is not None and tool.ask

    def repeatable(self, name: str) -> bool:
        """Whether a call of this tool that a crash broke off may be made again."""
        if name in self._given:
            return self._given[name].idempotent
        return self._allowed(name) and any(source.repeatable(name) for source in self._sources)

    async def call(self, name: str, args: Any, scope: Scope) -> Outcome:
        """Run a tool with the arguments that `parse` gave; never raises but for cancellation."""
        if (tool := self._tools.get(name)) is None:
            known = ", ".join(self._tools) or "none"
            return Outcome(False, f"There is no tool {name!r}. The tools are: {known}.", misused=True)
        if not isinstance(args, dict):
            return Outcome(False, f"The arguments are not a JSON object: {args!s:.200}", misused=True)
        try:
            inspect.signature(tool.run).bind(*tool.given(scope), **args)
        except TypeError as error:
            return Outcome(False, f"Wrong arguments for {name}: {error}.", misused=True)
        return await _run(tool, tool.given(scope), args)


async def _run(tool: Tool, given: tuple[Scope, ...], args: dict[str, Any]) -> Outcome:
    try:
        async with asyncio.timeout(tool.timeout):
            # In a thread: a plain function would hold the event loop, and with it everybody else.
            result = await asyncio.to_thread(tool.run, *given, **args)
            text = await result if inspect.isawaitable(result) else str(result)
    except ToolError as error:
        return Outcome(False, capped(str(error)), misused=True)
    except ToolFailed as error:
        log.warning("a tool failed", tool=tool.name, why=redaction.known.beginning(str(error), 500))
        return Outcome(False, capped(f"{tool.name} failed: {error}"))
    except asyncio.CancelledError:
        if _stopped():
            raise
        # Raised by the tool's own library: nobody stopped the turn.
        return Outcome(False, f"{tool.name} was cancelled.")
    except TimeoutError:
        return Outcome(False, f"{tool.name} took longer than {tool.timeout:g} seconds and was ended.")
    except Exception as error:
        log.warning("a tool failed", tool=tool.name, exc_info=True)
        return Outcome(False, f"{tool.name} failed: {type(error).__name__}.")
    return Outcome(True, capped(text))


def _stopped() -> bool:
    """Whether the turn was cancelled. (A frame that held its own task would make a cycle with the error.)"""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def capped(text: str) -> str:
    """The text without our secrets, cut to what the model may see."""
    text = redaction.known.ours(text)
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= MAX_OUTPUT else cut(raw, len(raw))


def cut(beginning: bytes, size: int) -> str:
    """The beginning of an output of so many bytes as the model sees it, in at most `MAX_OUTPUT` bytes."""
    if size <= MAX_OUTPUT:
        return beginning.decode("utf-8", "replace")
    mark = f"\n[cut: {size} bytes in all]"
    return beginning[: MAX_OUTPUT - len(mark)].decode("utf-8", "ignore") + mark


def parse(arguments: str) -> Any:
    """The arguments as the model wrote them, as an object; the text itself where they are none."""
    try:
        value = json.loads(arguments or "{}", parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) and not _deep(value) else arguments


def _deep(value: Any) -> bool:
    """Whether it is nested too deeply to be written again wherever the stack is deeper than here."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number} is out of range")  # JSON has no form to send it back in
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
