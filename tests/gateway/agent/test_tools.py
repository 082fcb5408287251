"""A model's calls, well meant or not."""

import asyncio
import threading
from typing import Any

import pytest

from gateway.agent import tools
from gateway.agent.builtin_tools import get_current_datetime
from gateway.agent.signature import tool
from gateway.agent.tools import MAX_OUTPUT, Scope, Tool, Toolbox, ToolError
from session.ids import SessionId

_ANY: dict[str, Any] = {"type": "object"}

SCOPE = Scope(SessionId("agent:main:cli:local"), "t1", "c1")


def box(run: Any, timeout: float = 5.0) -> Toolbox:
    return Toolbox([Tool("x", "does x", _ANY, run, timeout)])


async def test_a_call_gets_its_arguments_and_gives_text() -> None:
    async def add(a: int, b: int = 1) -> str:
        return f"{a + b}"

    assert await box(add).call("x", {"a": 1, "b": 2}, SCOPE) == (True, "3", False)
    assert await box(lambda a: a * 2).call("x", {"a": 21}, SCOPE) == (True, "42", False)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("y", {}, "There is no tool 'y'. The tools are: x."),
        ("x", "not json", "The arguments are not a JSON object: not json"),
        ("x", [1], "The arguments are not a JSON object"),
        ("x", {}, "missing a required argument: 'a'"),
        ("x", {"a": 1, "b": 2}, "unexpected keyword argument 'b'"),
        ("x", {"a": "refuse"}, "Not this one."),
    ],
)
async def test_a_misuse_is_told_to_the_model(name: str, args: Any, words: str) -> None:
    def run(a: object) -> str:
        if a == "refuse":
            raise ToolError("Not this one.")
        return "never"

    outcome = await box(run).call(name, args, SCOPE)
    assert not outcome.ok
    assert outcome.misused
    assert words in outcome.text


async def test_a_tool_that_fails_tells_no_details() -> None:
    def run() -> str:
        raise RuntimeError("the password is hunter2")

    outcome = await box(run).call("x", {}, SCOPE)
    assert outcome == (False, "x failed: RuntimeError.", False)


async def test_a_tool_that_takes_too_long_is_ended() -> None:
    ended = asyncio.Event()

    async def run() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    outcome = await box(run, timeout=0.01).call("x", {}, SCOPE)
    assert outcome == (False, "x took longer than 0.01 seconds and was ended.", False)
    assert ended.is_set()


async def test_a_tool_that_waits_holds_nobody_up() -> None:
    let_go = threading.Event()
    calling = asyncio.create_task(box(lambda: f"{let_go.wait(10)}").call("x", {}, SCOPE))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not calling.done()
    let_go.set()
    assert (await calling).text == "True"


async def test_a_cancellation_from_within_is_a_failure_and_one_from_without_is_not() -> None:
    entered = asyncio.Event()

    async def run(wait: bool) -> str:
        entered.set()
        if wait:
            await asyncio.Event().wait()
        raise asyncio.CancelledError

    assert await box(run).call("x", {"wait": False}, SCOPE) == (False, "x was cancelled.", False)
    entered.clear()
    calling = asyncio.create_task(box(run).call("x", {"wait": True}, SCOPE))
    await entered.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


@pytest.mark.parametrize("text", ["x" * MAX_OUTPUT, "ü" * (MAX_OUTPUT // 2), "\ud800" * MAX_OUTPUT])
async def test_a_result_that_fits_is_whole(text: str) -> None:
    assert (await box(lambda: text).call("x", {}, SCOPE)).text == text


@pytest.mark.parametrize("text", ["x" * (MAX_OUTPUT + 1), "ü" * MAX_OUTPUT, "😀" * MAX_OUTPUT])
async def test_a_result_that_does_not_is_cut(text: str) -> None:
    shown = (await box(lambda: text).call("x", {}, SCOPE)).text
    kept, _, note = shown.rpartition("\n")
    assert text.startswith(kept)
    assert MAX_OUTPUT - 4 < len(shown.encode()) <= MAX_OUTPUT
    assert note == f"[cut: {len(text.encode())} bytes in all]"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", {}),
        ("{}", {}),
        ('{"a": 1.5}', {"a": 1.5}),
        ('{"a": 1e999}', '{"a": 1e999}'),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": ', '{"a": '),
        ("[1]", "[1]"),
        ("null", "null"),
        ("[" * 100_000, "[" * 100_000),
        ('{"a": ' * 100 + "1" + "}" * 100, '{"a": ' * 100 + "1" + "}" * 100),
        ('{"a": [{"b": 1}]}', {"a": [{"b": 1}]}),
        ('{"a": ' + "9" * 5000 + "}", '{"a": ' + "9" * 5000 + "}"),
    ],
)
def test_arguments_as_models_write_them(written: str, meant: Any) -> None:
    assert tools.parse(written) == meant


def test_schemas_are_what_a_request_carries() -> None:
    assert box(lambda: "").schemas() == [
        {"type": "function", "function": {"name": "x", "description": "does x", "parameters": _ANY}}
    ]


async def test_the_clock() -> None:
    toolbox = Toolbox([tool(get_current_datetime)])
    assert (
        "(UTC+0900)" in (await toolbox.call("get_current_datetime", {"timezone": "Asia/Tokyo"}, SCOPE)).text
    )
    assert (await toolbox.call("get_current_datetime", {}, SCOPE)).ok
    for zone in ("Nowhere/Land", "../../etc/passwd", "", "\ud800", "\x00"):
        outcome = await toolbox.call("get_current_datetime", {"timezone": zone}, SCOPE)
        assert outcome.misused, zone
