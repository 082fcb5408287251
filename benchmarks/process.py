"""The processes that a benchmark needs, and what they cost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_CPU_OF_ALL_THREADS = 2  # CPUCLOCK_SCHED: to the nanosecond, where /proc has hundredths of a second


def cpu(pid: int) -> float:
    """CPU seconds of a process so far, all its threads: its clock as `clock_getcpuclockid` numbers it."""
    return time.clock_gettime(~pid << 3 | _CPU_OF_ALL_THREADS)


def resident(pid: int) -> float:
    """Resident memory in MiB."""
    return _memory(pid, "Rss")


def proportional(pid: int) -> float:
    """Memory in MiB, where pages that others share count by their share (PSS)."""
    return _memory(pid, "Pss")


def _memory(pid: int, kind: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} tells no {kind}")


def many_files(count: int) -> None:
    """Let this process, and those that it starts, have so many descriptors, as far as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count)), hard))


@contextmanager
def running(arguments: list[str], environment: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:
    """Another Python process, killed at the end; the gateway's log comes by its standard error."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if "run" in arguments else None,
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
    with running(server) as process:
        yield told(process)


def told(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Gateway:
    """A running daemon."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, port: int) -> None:
        self.pid = process.pid
        self.socket = directory / "lunar.sock"
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def ready(self) -> bool:
        """Whether everything works, the model included."""
        with urllib.request.urlopen(f"{self.url}/readyz") as answer:
            return bool(json.load(answer)["ok"])


@contextmanager
def gateway(
    model: str | None, directory: Path | None = None, *, program: str = "gateway", **environment: str
) -> Iterator[Gateway]:
    """A daemon on a directory of its own, with a model server or the demo; yields it when it is ready.

    `program`: the module that is run, such as one that looks at the gateway from within.
    """
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
        with running(["-m", program, "run"], settings) as process:
            yield Gateway(process, data, _port(process))


def _empty(directory: Path) -> Path:
    file = directory / "config.yaml"
    file.touch()
    return file


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if not line.startswith("{"):
            continue  # somebody who does not know about the log: it is shown where the start fails
        entry = json.loads(line)
        if entry["event"] == "ready":
            # The log goes on, a line a turn: a pipe that nobody reads would hold the gateway up.
            threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
            return int(entry["http"].rpartition(":")[2].strip("/"))
    raise RuntimeError("the gateway did not start: " + "".join(said))
