"""Real MCP servers, of other people's making: fetched once at pinned versions, and kept in pytest's cache."""

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests import requirement
from tests.fakes.processes import until

_PINS = Path(__file__).parent / "mcp"
_EVERYTHING = "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
_MINUTES = 180.0  # seconds that a download may take


def time_server(cache: Path) -> tuple[list[str], dict[str, str]]:
    """`mcp-server-time`, in Python, for stdio: the command, and the environment that it needs."""
    pins = _PINS / "requirements.txt"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    folder = _fetched(cache / "time", [pins], lambda into: [*command, "--target", str(into), "-r", str(pins)])
    return [sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"], {"PYTHONPATH": str(folder)}


def everything_server(cache: Path) -> list[str]:
    """The SDK's own `server-everything`, in JavaScript: its command, but for the transport."""
    node, npm = requirement.program("node", "nodejs"), requirement.program("npm")
    pins = [_PINS / "package.json", _PINS / "package-lock.json"]
    folder = _fetched(
        cache / "everything",
        pins,
        lambda into: [npm, "ci", "--prefix", str(into), "--ignore-scripts", "--no-audit", "--no-fund"],
    )
    return [node, str(folder / _EVERYTHING)]


def _fetched(folder: Path, pins: list[Path], command: Callable[[Path], list[str]]) -> Path:
    """The folder, filled by the command where that was not done for these pins already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = "".join(pin.read_text() for pin in pins)
    done = folder / "fetched"
    with open(f"{folder}.lock", "w") as lock:  # several workers come at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == wanted:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for pin in pins:
            shutil.copy(pin, folder)
        ran = subprocess.run(command(folder), capture_output=True, text=True, timeout=_MINUTES, check=False)
        if ran.returncode:
            requirement.missing(f"{folder.name}: the server cannot be fetched: {ran.stderr.strip()[-300:]}")
        done.write_text(wanted)
    return folder


class HttpServer:
    """`server-everything` over streamable HTTP, on a port of its own; can be killed and started again."""

    def __init__(self, command: list[str]) -> None:
        self._command = [*command, "streamableHttp"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        nothing = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=os.environ | {"PORT": str(self.port)}, stdout=nothing, stderr=nothing
        )
        await until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    async def kill(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.kill()
