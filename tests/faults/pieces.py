"""Long forms that are tests: each runs by pytest in a process of its own, and goes on where it ended."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.results import Line, note, passed
from tests.faults.targets import TARGETS
from tests.gateway.environment import cleared

ROOT = Path(__file__).parents[2]
SEED = 20_261_122
GRACE = 300.0  # seconds that what was begun may take beyond its stretch
RUNS, SECONDS = 1_000_000, 600.0  # of each fuzzed target, whichever comes first

Settings = dict[str, str]  # the environment of the next stretch; see the tests


class Piece(NamedTuple):
    """What pytest is given, and what is still to do after the stretches that passed (None: nothing)."""

    name: str
    test: str
    rest: Callable[[list[Line]], Settings | None]


def onward(past: list[Line]) -> Settings | None:
    """Once; or from where the last stretch ended, where that was before the end."""
    for figure in past[-1]["figures"] if past else ():
        if figure.get("next", 0) < figure.get("of", 0):
            return {"LUNAR_TEST_FIRST": str(figure["next"])}
    return None if past else {}


def fuzzed(past: list[Line]) -> Settings | None:
    """A million executions or ten minutes, whichever comes first, each stretch with a seed of its own."""
    tried = [figure for line in past for figure in line["figures"] if figure["measurement"] == "fuzz"]
    left = SECONDS - sum(figure["seconds"] for figure in tried)
    if left < 1 or sum(figure["runs"] for figure in tried) >= RUNS:
        return None
    return {"LUNAR_TEST_SEED": str(SEED + len(past)), "LUNAR_TEST_SECONDS": f"{left:.0f}"}


def _target(name: str) -> Callable[[list[Line]], Settings | None]:
    def rest(past: list[Line]) -> Settings | None:
        settings = fuzzed(past)
        return settings if settings is None else {"LUNAR_TEST_TARGET": name} | settings

    return rest


def of(*files: str) -> list[Piece]:
    """A piece for every test of some files, or for a file that has none of its own but a state machine."""
    return [
        Piece(name or Path(file).stem, f"{file}::{name}" if name else file, onward)
        for file in files
        for name in _tests(file) or [""]
    ]


def _tests(file: str) -> list[str]:
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    functions = (node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [name for name in functions if name.startswith("test_")]


FUZZ = [
    *(Piece(name, "tests/faults/test_fuzz.py::test_for_long", _target(name)) for name in sorted(TARGETS)),
    Piece("a running gateway", "tests/faults/test_fuzz_daemon.py", fuzzed),
]


def left(part: str, pieces: list[Piece]) -> list[tuple[Piece, Settings]]:
    """What is not done yet, and with what it goes on."""
    lines = passed(part)
    found = ((piece, piece.rest([line for line in lines if line["piece"] == piece.name])) for piece in pieces)
    return [(piece, settings) for piece, settings in found if settings is not None]


async def run(part: str, pieces: list[Piece], deadline: float) -> None:
    """Begin what is not done, one after the other, until the deadline."""
    for piece, settings in left(part, pieces):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        asked = float(settings.get("LUNAR_TEST_SECONDS", remaining))
        settings = {"LUNAR_TEST_SEED": str(SEED)} | settings
        settings |= {"LUNAR_TEST_TORTURE": "1", "LUNAR_TEST_SECONDS": f"{min(asked, remaining):.0f}"}
        await _stretch(part, piece, settings, remaining + GRACE)


async def _stretch(part: str, piece: Piece, settings: Settings, seconds: float) -> None:
    began = time.monotonic()
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as measured:
        more = {"LUNAR_TEST_FIGURES": measured.name, "LUNAR_TEST_REQUIRE": "all"}
        failure = await _failure(piece.test, cleared(dict(os.environ)) | settings | more, seconds)
        figures = [json.loads(line) for line in measured]
    assigned = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(settings.items()))
    note(
        part,
        piece=piece.name,
        seed=int(settings["LUNAR_TEST_SEED"]),
        first=int(settings.get("LUNAR_TEST_FIRST", 0)),
        seconds=round(time.monotonic() - began),
        failure=failure,
        repeat=f"{assigned} .venv/bin/pytest -s {piece.test}",
        figures=figures,
    )


async def _failure(test: str, environment: Settings, seconds: float) -> str | None:
    """Run a test; what pytest says of it where it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-n", "0", "--tb=short", "-p", "no:cacheprovider", test,
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # so that the daemons that it started are ended with it
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    except TimeoutError:
        return f"not over after {seconds:.0f} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return None if process.returncode == 0 else "\n".join(_told(said.decode("utf-8", "replace")))[:4000]


def _told(said: str) -> Iterator[str]:
    """The lines of pytest's that say why; all where there are none."""
    lines = said.splitlines()
    errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    yield from errors or lines[-40:]


def figures(part: str) -> Iterator[dict[str, Any]]:
    """All that a part has measured, in the stretches that passed."""
    for line in passed(part):
        yield from line.get("figures", ())
