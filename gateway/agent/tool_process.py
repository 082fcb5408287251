"""The process in which a configured function runs: never the gateway's own.

`python -m gateway.agent.tool_process <our pid>` reads a JSON object, `{"call", "args"}`, and writes a
line that says what became of it (`ok`, `misused` or `failed`), then its text. Without `args` the text
describes the function: `{"description", "parameters"}`. What the function itself prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from gateway.agent import leash


class Unusable(Exception):
    """The function cannot be called at all; the text says why, and what to do."""


class Answer(NamedTuple):
    """How it ended (`ok`, `misused` or `failed`), and the text of that."""

    outcome: str
    text: str


def main(gateway: int) -> None:
    """Answer one request from stdin on stdout."""
    leash.hold(gateway)
    request = json.load(sys.stdin)
    # What the function prints must not be mixed with its result, nor what it starts hold the pipe open.
    out = os.dup(1)
    os.dup2(2, 1)
    answer = _answer(request["call"], request.get("args"))
    with open(out, "wb") as pipe:
        pipe.write(f"{answer.outcome}\n".encode() + answer.text.encode("utf-8", "replace"))
    sys.stdout.flush()
    os._exit(0)  # threads that the function left behind are ended with the group


def _answer(call: str, args: dict[str, Any] | None) -> Answer:
    from gateway.agent.signature import BadFunction, Signature
    from gateway.agent.tools import ToolError

    try:
        function = _function(call)
        try:
            signature = Signature(function)
        except BadFunction as error:
            raise Unusable(f"{_place(function, call)}: {error}") from error
        if args is None:
            about = {"description": signature.description, "parameters": signature.parameters}
            return Answer("ok", json.dumps(about))
        return Answer("ok", _called(function, signature.arguments(args)))
    except Unusable as error:
        return Answer("failed", str(error))
    except (ToolError, ValueError) as error:  # the function's own way of refusing what it was given
        return Answer("misused", str(error))
    except BaseException as error:  # SystemExit too: whatever it is, the call has an end
        traceback.print_exc()
        return Answer("failed", f"{type(error).__name__}: {error}" if args is None else type(error).__name__)


def _called(function: Callable[..., Any], args: dict[str, Any]) -> str:
    from pydantic_core import to_json

    result = function(**args)
    if inspect.isawaitable(result):
        result = asyncio.run(_awaited(result))
    if result is None:
        return "(done)"
    return result if isinstance(result, str) else to_json(result, fallback=str).decode()


async def _awaited(result: Any) -> Any:
    return await result


def _function(call: str) -> Callable[..., Any]:
    """The function of `file.py:name` or `package.module:name`; raises `Unusable`."""
    place, _, name = call.rpartition(":")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except FileNotFoundError as error:
        if error.filename is not None and str(error.filename) != place:
            raise
        raise Unusable(f"{place}: there is no such file") from error
    except ModuleNotFoundError as error:
        raise Unusable(
            f"{place}: there is no module {error.name}; install it where the gateway is"
        ) from error
    except BaseException as error:
        raise Unusable(f"{_raised_at(error, place)}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value)) or "none"
        raise Unusable(f"{place}: there is no function {name}; its functions are: {known}")
    return function  # type: ignore[no-any-return]  # whatever it takes and returns is looked at when it is called


def _from_file(path: Path) -> ModuleType:
    path.stat()  # raises FileNotFoundError, with the name
    sys.path.insert(0, str(path.parent))  # it may import its neighbours
    os.chdir(path.parent)
    spec = importlib.util.spec_from_file_location("lunar_function", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where type hints are looked up
    spec.loader.exec_module(module)
    return module


def _raised_at(error: BaseException, place: str) -> str:
    """Where in the user's own file it was: `file.py:12`."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    return f"{place}:{lines[-1]}" if lines else place


def _place(function: Callable[..., Any], call: str) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}, {call.rpartition(':')[2]}" if code else call


if __name__ == "__main__":
    main(int(sys.argv[1]))
