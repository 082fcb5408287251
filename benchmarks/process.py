"""The processes that a benchmark needs, and what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """CPU seconds of a process so far, all its threads (`/proc/<pid>/stat`)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> float:
    """Resident memory in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} tells no VmRSS")


@contextmanager
def _running(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if "gateway" in arguments else None,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def model_server(*options: str) -> Iterator[str]:
    """The tests' OpenAI-compatible server as a process of its own; yields its base URL."""
    server = ["-m", "tests.fakes.openai_server", "--port", "0", "--delay-ms", "0", *options]
    with _running(server, {}) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


class Gateway:
    """A running daemon."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, port: int) -> None:
        self.pid = process.pid
        self.socket = directory / "lunar.sock"
        self.url = f"http://127.0.0.1:{port}"

    @property
    def ready(self) -> bool:
        """Whether everything works, the model included."""
        with urllib.request.urlopen(f"{self.url}/readyz") as answer:
            return bool(json.load(answer)["ok"])


@contextmanager
def gateway(model: str | None, directory: Path | None = None, **environment: str) -> Iterator[Gateway]:
    """A daemon on a directory of its own, with a model server or the demo; yields it when it is ready."""
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as temporary:
        data = directory or Path(temporary)
        settings = {
            "LUNAR_CONFIG": str(_empty(Path(temporary))),
            "LUNAR_DATA_DIR": str(data),
            "LUNAR_HTTP__PORT": "0",
            **environment,
        }
        if model:
            settings |= {
                "LUNAR_MODEL__BASE_URL": model,
                "LUNAR_MODEL__NAME": "fake",
                "LUNAR_MODEL__API_KEY": "none",
            }
        with _running(["-m", "gateway", "run"], settings) as process:
            yield Gateway(process, data, _port(process))


def _empty(directory: Path) -> Path:
    file = directory / "config.yaml"
    file.touch()
    return file


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        entry = json.loads(line)
        if entry["event"] == "ready":
            # The log goes on, a line a turn: a pipe that nobody reads would hold the gateway up.
            threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
            return int(entry["http"].rpartition(":")[2].strip("/"))
    raise RuntimeError("the gateway did not start")
