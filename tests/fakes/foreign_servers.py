"""OpenAI-compatible servers that are not ours, installed from the registry into an environment of their own.

    async with foreign_server("llmock", "serve", "--port", str(port)) as server: ...

The environment is made once and kept until its pins change; where it cannot be made, the test is skipped.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.requirement import missing

PINS = Path(__file__).with_name("foreign_servers.txt")  # all that is needed, each in one version
_CACHE = Path(__file__).parents[2] / ".pytest_cache" / "foreign_servers"
_INSTALLING = 300.0  # seconds
_STARTING = 120.0  # LiteLLM imports for ten seconds, and longer beside other tests


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def foreign_server(program: str, *arguments: str, **environment: str) -> AsyncIterator[list[str]]:
    """Run a program until it listens; gives the lines that it has written. Ends it on the way out."""
    programs = await asyncio.to_thread(_installed)
    process = await asyncio.create_subprocess_exec(
        programs / "python", programs / program, *arguments,
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=_CACHE,
    )  # fmt: skip
    written: list[str] = []
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(_STARTING):
            await _read(process, written, until="Uvicorn running on")
        reading = asyncio.create_task(_read(process, written))
        yield written
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if reading:
            await reading


async def _read(process: asyncio.subprocess.Process, written: list[str], until: str | None = None) -> None:
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode("utf-8", "replace"):
        written.append(line)
        if until and until in line:
            return
    if until:
        raise AssertionError(f"it ended before it listened: {''.join(written[-20:])}")


def _installed() -> Path:
    """The folder of its programs; made where it is not there, by one test process alone."""
    key = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = _CACHE / key
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _install(folder)
    return folder / "bin"


def _install(folder: Path) -> None:
    for old in _CACHE.glob("[0-9a-f]*"):
        shutil.rmtree(old)
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    # Nothing but the pins, which are complete; no byte code, for most of it is never imported.
    chosen = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
        "-r",
        str(PINS),
    ]
    try:
        ran = subprocess.run(
            [*pip, *chosen], capture_output=True, text=True, timeout=_INSTALLING, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        missing(f"the servers that are not ours cannot be installed ({type(error).__name__})")
        return
    if ran.returncode:
        missing(f"the servers that are not ours cannot be installed: {ran.stderr.strip()[-300:]}")
    (folder / "complete").touch()
