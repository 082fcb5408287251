"""`python -m MODULE …` without the second of CPU that its imports take: a process that has them forks it.

    process = await start("gateway", "run", cwd=folder, env=environment, stderr=writable)
    ... process.pid, process.send_signal(signal.SIGTERM), await process.wait()

All else is as it would be: arguments, environment, working directory, standard streams, signals, `__main__`.
Set LUNAR_TEST_FORK=0 to have every process start for itself.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
# What a daemon imports sooner or later; what is run as `__main__` must not be among it.
IMPORTED = (
    "gateway.verbs.run",
    "gateway.agent.demo",
    "gateway.agent.discover",
    "gateway.agent.model",
    "channels.telegram.channel",
    "openai.resources.chat.completions",
)
ALONE = ("tests.faults.skewed",)  # what changes Python before anything of ours is imported
_LARGEST = 1 << 17  # bytes of a request


class Request(NamedTuple):
    """What is to be run, and how."""

    module: str
    arguments: Sequence[str]
    cwd: str
    env: Mapping[str, str]


# -- in the process that forks ---------------------------------------------------------------------


class Nursery:
    """Answers each request with the pid of a new process, and writes its exit status when it has ended."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._running: dict[int, tuple[int, int]] = {}  # by pidfd: the pid, and where its status goes
        self._poll = select.poll()
        self._poll.register(asked, select.POLLIN)

    def serve(self) -> Request | None:
        """Go on until nobody can ask any more; in a new process: return what it is to run."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._running:
                    self._reap(fd)
                    continue
                data, fds, _, _ = socket.recv_fds(self._asked, _LARGEST, 4)
                if not data:
                    return None
                if pid := os.fork():
                    self._note(pid, fds)
                else:
                    return self._become(Request(**json.loads(data)), fds)

    def _note(self, pid: int, fds: list[int]) -> None:
        *streams, status = fds
        for fd in streams:
            os.close(fd)
        ended = os.pidfd_open(pid)
        self._running[ended] = pid, status
        self._poll.register(ended, select.POLLIN)
        self._asked.send(str(pid).encode())

    def _reap(self, ended: int) -> None:
        pid, status = self._running.pop(ended)
        self._poll.unregister(ended)
        os.close(ended)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            os.write(status, str(code).encode())
        except BrokenPipeError:
            pass  # whoever had started it does not care any more
        os.close(status)

    def _become(self, request: Request, fds: list[int]) -> Request:
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for good; the other one was another's
        self._asked.detach()
        os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
        os.environ.clear()
        os.environ.update(request.env)
        time.tzset()
        os.chdir(request.cwd)
        sys.path[0] = request.cwd  # as with `-m`
        sys.argv[:] = [request.module, *request.arguments]
        return request


def _main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is there already stays in memory that all share
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose the other threads"
    if request := Nursery(socket.socket(fileno=int(sys.argv[1]))).serve():
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)


# -- in the test's process -------------------------------------------------------------------------


class Process:
    """As much of `asyncio.subprocess.Process` as the tests use; its streams are whatever it was given."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        self._ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(status, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._status)
        told = os.read(self._status, 16)
        os.close(self._status)
        self.returncode = int(told) if told else -signal.SIGKILL
        if not self._ended.done():
            self._ended.set_result(self.returncode)

    async def wait(self) -> int:
        """Its exit code, or minus the signal that ended it, once it has ended."""
        code: int = await asyncio.shield(self._ended)
        return code

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Client:
    """The one process of this test process that forks, started at the first need."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking: socket.socket | None = None

    def ask(self, request: Request, fds: list[int]) -> int:
        """Have it fork; returns the pid."""
        with self._lock:
            if self._asking is None:
                self._asking = self._started()
            socket.send_fds(self._asking, [json.dumps(request._asdict()).encode()], fds)
            answer = self._asking.recv(32)
        assert answer, "the process that forks has ended"
        return int(answer)

    def _started(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.forking", str(theirs.fileno())],
                cwd=ROOT, env={**kept, "PYTHONPATH": str(ROOT)}, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

        def end() -> None:
            ours.close()
            process.wait()

        atexit.register(end)
        return ours


_client = _Client()


def possible(module: str, env: Mapping[str, str]) -> bool:
    """Whether `python -m module` may be a fork: Python reads some of the environment when it starts."""
    if module in ALONE:
        return False
    early = {name: value for name, value in env.items() if name.startswith("PYTHON")}
    for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):  # which change nothing that a test can see
        early.pop(name, None)
    return early == {"PYTHONPATH": str(ROOT)} and os.environ.get("LUNAR_TEST_FORK") != "0"


async def start(
    module: str, *arguments: str, cwd: Path, env: Mapping[str, str], streams: Sequence[int]
) -> Process:
    """Run `python -m module arguments…` with these three standard streams, which stay the caller's."""
    ended, status = os.pipe()
    request = Request(module, arguments, str(cwd), dict(env))
    try:
        pid = await asyncio.to_thread(_client.ask, request, [*streams, status])
    except BaseException:
        os.close(ended)
        raise
    finally:
        os.close(status)
    return Process(pid, ended)


async def ran(
    module: str, *arguments: str, cwd: Path, env: Mapping[str, str], stdin: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """Run it to its end on pipes; returns its exit code and what it wrote to stdout and stderr."""
    given, ours = os.pipe()
    (out, to_out), (err, to_err) = await pipe(), await pipe()
    streams = (given, to_out, to_err)
    try:
        process = await start(module, *arguments, cwd=cwd, env=env, streams=streams)
    except BaseException:
        os.close(ours)
        raise
    finally:
        for fd in streams:
            os.close(fd)
    try:
        async with asyncio.timeout(timeout):
            _, said, complained = await asyncio.gather(
                asyncio.to_thread(_fill, ours, stdin), out.read(), err.read()
            )
            return await process.wait(), said, complained
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _fill(stdin: int, data: bytes) -> None:
    try:
        with os.fdopen(stdin, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass  # it reads nothing


async def pipe() -> tuple[asyncio.StreamReader, int]:
    """What comes out of a new pipe, and its other end, to be closed once somebody else writes to it."""
    ours, theirs = os.pipe()
    stream = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(stream)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(ours, "rb", 0))
    return stream, theirs


if __name__ == "__main__":
    _main()
