"""Configured functions: what a model gets of them, and what is left of their processes."""

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.agent.environment import scrubbed
from gateway.agent.functions import Functions
from gateway.agent.tools import MAX_OUTPUT, Scope, Toolbox
from gateway.config import Function
from session.ids import SessionId
from tests.fakes.garbage import garbage
from tests.fakes.processes import gone, until

SESSION = SessionId("agent:main:cli:local")
SCOPE = Scope(SESSION, "t1", "c1")
ROOT = Path(__file__).parents[3]

SOURCE = '''
import asyncio, json, os, subprocess, sys, threading, time
from dataclasses import dataclass
from beside import GREETING

@dataclass
class Found:
    name: str

def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    print("this is not the result")
    return a + b

async def later(word: str) -> str:
    """Answer a little later."""
    await asyncio.sleep(0)
    return f"{GREETING} {word}"

def found() -> list[Found]:
    """Find something."""
    return [Found("x")]

def nothing() -> None:
    """Do something."""

def big(size: int) -> str:
    """Say much."""
    return "x" * size

def noisy(size: int) -> str:
    """Print much."""
    for _ in range(size >> 20):
        sys.stdout.write("y" * (1 << 20))
    return "done"

def picky(day: str) -> str:
    """Refuse."""
    raise ValueError(f"{day} is no day; write it as 2026-01-31")

def broken() -> str:
    """Fail."""
    raise RuntimeError("the password is hunter2")

def leaves() -> str:
    """Leave."""
    sys.exit(3)

def vanishes() -> str:
    """End without a word."""
    os._exit(9)

def environment() -> str:
    """Show the environment."""
    return json.dumps(dict(os.environ))

def busy(path: str) -> str:
    """Start a child and a thread, and never end."""
    child = subprocess.Popen(["sleep", "1000"])
    threading.Thread(target=time.sleep, args=(1000,)).start()
    with open(path, "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(1000)
    return "never"

def background(path: str) -> str:
    """Leave a child behind."""
    with open(path, "w") as file:
        file.write(str(subprocess.Popen(["sleep", "1000"]).pid))
    return "begun"
'''


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("GREETING = 'hello'\n")
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


Build = Callable[..., Toolbox]


@pytest.fixture
async def build(source: Path) -> AsyncIterator[Build]:
    """Starts functions of `source` by name, or by a whole setting."""
    made = []

    def start(*names: str, faults: dict[str, str] | None = None, **settings: Function) -> Toolbox:
        all_ = {name: Function(call=f"{source}:{name}") for name in names} | settings
        functions = Functions(all_, scrubbed(os.environ), {} if faults is None else faults)
        functions.start()
        made.append(functions)
        return Toolbox((), [functions])

    yield start
    for functions in made:
        await functions.stop()


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("add", {"a": 1}, "3"),
        ("add", {"a": "5", "b": 6}, "11"),
        ("later", {"word": "you"}, "hello you"),
        ("found", {}, '[{"name":"x"}]'),
        ("nothing", {}, "(done)"),
        ("noisy", {"size": 64 << 20}, "done"),
    ],
)
async def test_a_function_is_called(build: Build, name: str, args: dict[str, Any], text: str) -> None:
    box = build(name)
    await box.ready(SESSION)
    assert await box.call(name, args, SCOPE) == (True, text, False)


@pytest.mark.parametrize(
    ("name", "args", "misused", "words"),
    [
        ("add", {"a": "x"}, True, "Wrong arguments for add: a: Input should be a valid integer"),
        ("add", {"a": 1, "c": 1}, True, "c: Extra inputs are not permitted"),
        ("picky", {"day": "x"}, True, "x is no day; write it as 2026-01-31"),
        ("broken", {}, False, "broken failed: RuntimeError"),
        ("leaves", {}, False, "leaves failed: SystemExit"),
        ("vanishes", {}, False, "vanishes failed: its process ended without an answer"),
    ],
)
async def test_a_call_that_fails(
    build: Build, name: str, args: dict[str, Any], misused: bool, words: str
) -> None:
    box = build(name)
    await box.ready(SESSION)
    outcome = await box.call(name, args, SCOPE)
    assert (outcome.ok, outcome.misused) == (False, misused)
    assert words in outcome.text
    assert "hunter2" not in outcome.text


async def test_a_large_result_costs_its_beginning(build: Build) -> None:
    box = build("big")
    await box.ready(SESSION)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = await box.call("big", {"size": 256 << 20}, SCOPE)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10  # KiB
    assert len(outcome.text) <= MAX_OUTPUT
    assert outcome.text.endswith(f"x\n[cut: {256 << 20} bytes in all]")


@pytest.mark.parametrize("how", ["stopped", "too long"])
async def test_nothing_is_left_of_a_call_that_is_ended(
    build: Build, source: Path, tmp_path: Path, how: str
) -> None:
    timeout = {"timeout": "1500ms"} if how == "too long" else {}
    busy = Function.model_validate({"call": f"{source}:busy", **timeout})
    box = build(busy=busy)
    await box.ready(SESSION)
    told = tmp_path / "pids"
    call = asyncio.create_task(box.call("busy", {"path": str(told)}, SCOPE))
    await until(lambda: told.exists() and len(told.read_text().split()) == 2)
    if how == "stopped":
        began = time.monotonic()
        call.cancel()
        await asyncio.wait({call})
        assert time.monotonic() - began < 1.0
    else:
        assert (await call).text == "busy took longer than 1.5 seconds and was ended."
    for pid in map(int, told.read_text().split()):
        await until(lambda pid=pid: gone(pid))


async def test_nothing_is_left_of_a_call_that_is_over(build: Build, tmp_path: Path) -> None:
    box = build("background")
    await box.ready(SESSION)
    assert (await box.call("background", {"path": str(tmp_path / "pid")}, SCOPE)).text == "begun"
    await until(lambda: gone(int((tmp_path / "pid").read_text())))


async def test_nothing_is_left_when_the_gateway_is_killed(source: Path, tmp_path: Path) -> None:
    program = f"""
import asyncio
from gateway.agent.functions import Functions
from gateway.agent.tools import Scope, Toolbox
from gateway.config import Function
async def main():
    functions = Functions({{"busy": Function(call="{source}:busy")}}, {{}}, {{}})
    functions.start()
    await functions.ready("s")
    await Toolbox((), [functions]).call("busy", {{"path": "{tmp_path}/pids"}}, Scope("s", "t", "c"))
asyncio.run(main())
"""
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT)
    told = tmp_path / "pids"
    await until(lambda: told.exists() and len(told.read_text().split()) == 2)
    gateway.send_signal(signal.SIGKILL)
    await gateway.wait()
    for pid in map(int, told.read_text().split()):
        await until(lambda pid=pid: gone(pid))


async def test_its_process_sees_no_secret(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "TELEGRAM_BOT_TOKEN", "LUNAR_HTTP_TOKEN", "MY_TOKEN"):
        monkeypatch.setenv(name, "canary")
    box = build("environment")
    await box.ready(SESSION)
    seen = json.loads((await box.call("environment", {}, SCOPE)).text)
    assert "canary" not in str(seen)
    assert seen["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("text", "call", "why"),
    [
        (None, "{}:x", "{}: there is no such file"),
        ("def y() -> str:\n    'Do.'", "{}:x", "{}: there is no function x; its functions are: y"),
        ("import nowhere", "{}:x", "{}: there is no module nowhere; install it where the gateway is"),
        ("def x(:", "{}:x", "{}:1: SyntaxError: "),
        ("a = 1\n\nb = a / 0", "{}:x", "{}:3: ZeroDivisionError: division by zero"),
        ("def x(a) -> str:\n    'Do.'", "{}:x", "{}:1, x: the parameter a has no type hint; write one"),
        ("def x() -> str: ...", "{}:x", "{}:1, x: it has no docstring; write what it does"),
        (None, "no.such:x", "no.such: there is no module no; install it"),
        (None, "json:nope", "json: there is no function nope; its functions are: "),
    ],
)
async def test_a_function_that_cannot_be_a_tool_is_told_of_and_ends_nothing(
    build: Build, tmp_path: Path, text: str | None, call: str, why: str
) -> None:
    file = tmp_path / "other.py"
    if text is not None:
        file.write_text(text)
    faults: dict[str, str] = {}
    box = build("add", faults=faults, x=Function(call=call.format(file)))
    await until(lambda: bool(faults))
    await box.ready(SESSION)
    assert faults["tools.functions.x"].startswith(why.format(file))
    assert (await box.call("add", {"a": 1}, SCOPE)).ok
    assert "The tools are: add." in (await box.call("x", {}, SCOPE)).text


async def test_what_the_configuration_says_of_a_function_holds(build: Build, source: Path) -> None:
    box = build("nothing", add=Function(call=f"{source}:add", ask=True, idempotent=True))
    assert box.repeatable("add")  # before anything was started: a turn that is resumed asks at once
    await box.ready(SESSION)
    assert (box.asks("add"), box.asks("nothing")) == (True, False)
    assert (box.repeatable("add"), box.repeatable("nothing"), box.repeatable("other")) == (True, False, False)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_call_leaves_nothing_to_the_garbage_collector(
    source: Path, tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Also on the loop that the gateway runs on."""
    told = tmp_path / "pids"

    async def calls() -> set[str]:
        all_ = {name: Function(call=f"{source}:{name}") for name in ("add", "busy")}
        functions = Functions(all_, scrubbed(os.environ), {})
        functions.start()
        await functions.ready(SESSION)
        box = Toolbox((), [functions])
        with garbage() as left:
            for _ in range(3):
                assert (await box.call("add", {"a": 1}, SCOPE)).text == "3"
            stopped = asyncio.create_task(box.call("busy", {"path": str(told)}, SCOPE))
            await until(told.exists)
            stopped.cancel()
            await asyncio.wait({stopped})
            del stopped
            await asyncio.sleep(0.1)  # a loop tells of the end of a pipe when it has its time
        await functions.stop()
        return left.of("asyncio", "gateway", "subprocess", "uvloop")

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(calls()) == set()
