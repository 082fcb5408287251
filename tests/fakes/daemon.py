"""The real daemon as a process: started on a folder, killed, stopped, started again.

async with Daemon(folder, env={"LUNAR_MODEL__NAME": "fake-1"}) as daemon:
    client = await daemon.client("work")
    await daemon.kill()
    await daemon.start()
    ... daemon.events("agent:main:cli:work"), await daemon.get("/readyz")
"""

import asyncio
import atexit
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from session import ids
from tests.fakes import forking, kept
from tests.fakes.ndjson import Client

ROOT = Path(__file__).parents[2]
TIMEOUT = 60.0  # seconds; only a machine that is very busy needs as many

Process = asyncio.subprocess.Process | forking.Process

_running: set[int] = set()


@atexit.register
def _kill_the_rest() -> None:
    for pid in _running:  # only where a test run was ended from outside
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Daemon:
    """One data directory and at most one process on it. `log` holds the entries of all its lives."""

    def __init__(
        self,
        folder: Path,
        *,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        module: str = "gateway",
        verbose: bool = False,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.socket = self.data_dir / "lunar.sock"
        self.port = 0
        self.log: list[dict[str, Any]] = []
        self.noise: list[str] = []  # lines of stderr that are no log entries
        self.process: Process | None = None
        self._env = dict(env or {})
        if not self._env.keys() & {"LUNAR_STORE_URL", "LUNAR_STORE__URL"} and (
            own := kept.database(self.data_dir)
        ):
            self._env["LUNAR_STORE_URL"] = own.url
        self._config = config
        self._arguments = ["run", "--verbose"] if verbose else ["run"]
        self._module = module  # what is run in its stead, such as the gateway with crashes
        self.within: list[str] = []  # the program, with its arguments, that runs it, such as nsenter
        self._news = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None
        self._clients: list[Client] = []

    # -- life ------------------------------------------------------------------------------------

    async def start(self, **env: str) -> Self:
        """Start it and wait until it is ready; fails with what it wrote where it is not."""
        before = len(self.log)
        await self.launch(**env)
        ready = await self.logged("ready", since=before)
        self.port = int(ready["http"].rsplit(":", 1)[1].strip("/"))
        return self

    async def launch(self, **env: str) -> None:
        """Start the process only."""
        assert self.process is None, "it is running already"
        self.port = 0  # until it is ready: the last one may be somebody else's by now
        self.folder.mkdir(exist_ok=True)
        arguments = [*self._arguments]
        if self._config is not None:
            path = self.folder / "config.yaml"
            path.write_text(json.dumps(self._config), encoding="utf-8")  # JSON is YAML
            arguments += ["--config", str(path)]
        await self._run(arguments, self._environment() | env)

    async def _run(self, arguments: list[str], env: dict[str, str]) -> None:
        errors, theirs = await forking.pipe()
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            if not self.within and forking.possible(self._module, env):
                streams = (nothing, nothing, theirs)
                self.process = await forking.start(
                    self._module, *arguments, cwd=self.folder, env=env, streams=streams
                )
            else:
                self.process = await asyncio.create_subprocess_exec(
                    *self.within, sys.executable, "-m", self._module, *arguments,
                    cwd=self.folder, env=env, stdin=nothing, stdout=nothing, stderr=theirs,
                )  # fmt: skip
        finally:
            os.close(nothing)
            os.close(theirs)
        _running.add(self.process.pid)
        self._reading = asyncio.create_task(self._read(self.process, errors))

    def _environment(self) -> dict[str, str]:
        # Nothing of this machine's: no key, no configuration, no proxy.
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "LUNAR_DATA_DIR": str(self.data_dir),
            "LUNAR_HTTP__PORT": "0",
            **self._env,
        }

    async def _read(self, process: Process, errors: asyncio.StreamReader) -> None:
        while line := await errors.readline():
            text = line.decode("utf-8", "replace").rstrip("\n")
            try:
                self.log.append(json.loads(text))
            except ValueError:
                self.noise.append(text)
            await self._tell()
        await process.wait()
        _running.discard(process.pid)
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def exit(self) -> int:
        """Wait until the process has ended by itself; returns its exit code."""
        assert self.process is not None
        assert self._reading is not None
        async with asyncio.timeout(TIMEOUT):
            await asyncio.shield(self._reading)
        code = self.process.returncode
        assert code is not None
        self.process = self._reading = None
        return code

    async def stop(self) -> int:
        """SIGTERM, and wait for the end; returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.exit()

    async def kill(self) -> None:
        """SIGKILL: what a power cut is to a process."""
        self.signal(signal.SIGKILL)
        await self.exit()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        if self.process is not None and self.process.returncode is None:
            self.signal(signal.SIGKILL)
        if self._reading is not None:
            await self.exit()

    # -- looking ---------------------------------------------------------------------------------

    async def logged(self, event: str, *, since: int = 0, **members: object) -> dict[str, Any]:
        """The first log entry with this event and these members, waited for."""

        def wanted() -> dict[str, Any] | None:
            for entry in self.log[since:]:
                if entry.get("event") == event and members.items() <= entry.items():
                    return entry
            return None

        await self.until(lambda: wanted() is not None, f"the log entry {event!r}")
        found = wanted()
        assert found is not None
        return found

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition that the log or the end of the process makes true."""
        try:
            async with asyncio.timeout(TIMEOUT), self._news:
                await self._news.wait_for(lambda: condition() or self._ended)
        except TimeoutError:
            raise AssertionError(f"{what} did not come: {self.log[-8:]} {self.noise}") from None
        if not condition():
            raise AssertionError(f"ended before {what}: {self.log[-8:]} {self.noise}")

    @property
    def _ended(self) -> bool:
        return self._reading is None or self._reading.done() or self.process is None or (
            self.process.returncode is not None
        )  # fmt: skip

    @property
    def kept(self) -> kept.Kept:
        """What it stored, wherever that is."""
        return kept.of(self.data_dir)

    def path(self, session: str) -> Path:
        return self.data_dir / "sessions" / ids.file_name(session)

    def raw(self, session: str) -> bytes:
        """The transcript's bytes."""
        return self.kept.raw(session)

    def events(self, session: str) -> list[dict[str, Any]]:
        """The transcript's events; every line must parse."""
        return [json.loads(line) for line in self.raw(session).decode().splitlines()]

    async def client(self, session: str = "local", **hello: Any) -> Client:
        """A connection that was welcomed; closed with the daemon."""
        client = await self.connect()
        await client.hello(session, **hello)
        return client

    async def connect(self) -> Client:
        """A connection that has said nothing yet."""
        client = await Client(self.socket).connect()
        self._clients.append(client)
        return client

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON body of a GET on the HTTP port."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET %b HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
        async with asyncio.timeout(TIMEOUT):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)
