"""Tools as a table: what a model may call, and how a call is carried out."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import structlog

log = structlog.get_logger(__name__)

MAX_OUTPUT = 64 * 1024  # bytes of a result that the model sees
_TIMEOUT = 60.0  # seconds


class Tool(NamedTuple):
    """One tool. `parameters` is a JSON Schema object; `run` gets them as keywords and returns text."""

    name: str
    description: str
    parameters: dict[str, Any]
    run: Callable[..., Awaitable[str] | str]
    timeout: float = _TIMEOUT


class Outcome(NamedTuple):
    """What a call came to; `misused` where the model called it wrongly (and may try again)."""

    ok: bool
    text: str
    misused: bool = False


class ToolError(Exception):
    """A tool refuses its arguments; the text tells the model what to do."""


class Toolbox:
    """The tools of one agent."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def schemas(self) -> list[dict[str, Any]]:
        """The `tools` member of a Chat Completions request."""
        return [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": t.parameters},
            }
            for t in self._tools.values()
        ]

    async def call(self, name: str, args: Any) -> Outcome:
        """Run a tool with the arguments that `parse` gave; never raises but for cancellation."""
        if (tool := self._tools.get(name)) is None:
            known = ", ".join(self._tools) or "none"
            return Outcome(False, f"There is no tool {name!r}. The tools are: {known}.", misused=True)
        if not isinstance(args, dict):
            return Outcome(False, f"The arguments are not a JSON object: {args!s:.200}", misused=True)
        try:
            inspect.signature(tool.run).bind(**args)
        except TypeError as error:
            return Outcome(False, f"Wrong arguments for {name}: {error}.", misused=True)
        return await _run(tool, args)


async def _run(tool: Tool, args: dict[str, Any]) -> Outcome:
    try:
        async with asyncio.timeout(tool.timeout):
            # In a thread: a plain function would hold the event loop, and with it everybody else.
            result = await asyncio.to_thread(tool.run, **args)
            text = await result if inspect.isawaitable(result) else str(result)
    except ToolError as error:
        return Outcome(False, str(error), misused=True)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        # Raised by the tool's own library: nobody stopped the turn.
        return Outcome(False, f"{tool.name} was cancelled.")
    except TimeoutError:
        return Outcome(False, f"{tool.name} took longer than {tool.timeout:g} seconds and was ended.")
    except Exception as error:
        log.warning("a tool failed", tool=tool.name, exc_info=True)
        return Outcome(False, f"{tool.name} failed: {type(error).__name__}.")
    return Outcome(True, capped(text))


def capped(text: str) -> str:
    """The text, cut to what the model may see."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= MAX_OUTPUT:
        return text
    return raw[:MAX_OUTPUT].decode("utf-8", "ignore") + f"\n[cut: {len(raw)} bytes in all]"


def parse(arguments: str) -> Any:
    """The arguments as the model wrote them, as an object; the text itself where they are none."""
    try:
        value = json.loads(arguments or "{}", parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number} is out of range")  # JSON has no form to send it back in
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
