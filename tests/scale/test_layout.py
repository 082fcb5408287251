"""docs/scale-out/layout.sh, run as it is on free ports: people come through its nginx, and machines die."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests import requirement
from tests.fakes import postgres_server
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.processes import gone, until
from tests.fakes.webclient import WebClient

SCRIPT = Path(__file__).parents[2] / "docs" / "scale-out" / "layout.sh"
NODES = 3


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]


class Layout:
    """Everything that the script starts below a folder."""

    def __init__(self, folder: Path, model: OpenAIServer) -> None:
        self.folder = folder / "layout"
        nginx, db1, db2, *nodes = free_ports(3 + NODES)
        self.port = int(nginx)
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LUNAR": str(Path(sys.executable).parent / "lunar"),
            "PG_BIN": str(postgres_server.binaries()),
            "NGINX_PORT": nginx,
            "NODE_PORTS": " ".join(nodes),
            "DB1_PORT": db1,
            "DB2_PORT": db2,
            "LUNAR_MODEL__BASE_URL": model.base_url,
            "LUNAR_MODEL__NAME": "fake-1",
            "LUNAR_MODEL__API_KEY": "sk-test-0123456789abcdef",
        }

    async def run(self, verb: str, *, fails: bool = False) -> str:
        """What it wrote so far, all verbs of it."""
        told = self.folder.parent / "told"  # a pipe would stay open: what it starts goes on
        with told.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                "bash", SCRIPT, verb, self.folder,
                env=self._environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(120):
            code = await process.wait()
        assert bool(code) == fails, told.read_text()
        return told.read_text()

    def runs(self, server: str) -> bool:
        """Whether a PostgreSQL says that it does."""
        told = self.folder / "postgres" / server / "postmaster.pid"  # it stays where one was killed
        return told.exists() and not gone(int(told.read_bytes().split()[0]))

    async def kill(self, *files: str) -> None:
        """kill -9 of the processes whose numbers are in these files (first line)."""
        for file in files:
            pid = int((self.folder / file).read_bytes().split()[0])
            os.kill(pid, signal.SIGKILL)
            await until(partial(gone, pid))


@pytest.fixture
async def layout(folder: Path, openai: OpenAIServer) -> AsyncIterator[Layout]:
    requirement.program("nginx", "/usr/sbin/nginx")
    await asyncio.to_thread(folder.chmod, 0o711)  # PostgreSQL's user has to come through
    layout = Layout(folder, openai)
    try:
        await layout.run("up")
        yield layout
    finally:
        await layout.run("down")


class Visitor:
    """A browser that comes through nginx and comes back by itself, with its secret and its cursor."""

    def __init__(self, layout: Layout) -> None:
        self._port = layout.port
        self._seen: dict[str, Any] = {}
        self._client: WebClient | None = None
        self.answers: list[str] = []

    async def ask(self, id: str, text: str) -> None:
        """Say it, over as many connections as it takes, until it is answered."""
        async with asyncio.timeout(60):
            while id not in self.answers:
                try:
                    await self._ask(id, text)
                except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake):
                    self._client = None
                    await asyncio.sleep(0.1)

    async def _ask(self, id: str, text: str) -> None:
        if self._client is None:
            self._client = await WebClient.open(self._port, **self._seen)
            welcome = await self._client.receive()
            self._seen["session"] = welcome.get("session", self._seen.get("session"))
        await self._client.send(type="message", id=id, text=text)
        while id not in self.answers:
            frame = await self._client.receive()
            assert frame["type"] != "error" or frame["code"] in ("storage_unavailable", "shutting_down"), (
                frame
            )
            if frame["type"] == "event":
                self._seen["after"] = frame["cursor"]
                self.answers += frame["event"].get("answers", ())


async def test_people_are_served_while_its_machines_die(layout: Layout, openai: OpenAIServer) -> None:
    visitors = [Visitor(layout) for _ in range(NODES * 2)]
    said: list[str] = []

    async def everybody(id: str) -> None:
        said.append(id)
        await asyncio.gather(*(visitor.ask(id, "hello") for visitor in visitors))

    await everybody("before")
    await layout.kill("node0.pid")
    await everybody("without-a-node")
    await layout.run("up")
    assert "the primary, db1, runs" in await layout.run("promote", fails=True)
    await layout.kill("postgres/db1/postmaster.pid")
    await layout.run("promote")
    await everybody("without-the-primary")
    await layout.run("down")
    assert "db1 was replaced, and is not started" in await layout.run("up")
    assert (layout.runs("db1"), layout.runs("db2")) == (False, True)
    await everybody("without-a-standby")
    await layout.run("rejoin")
    await everybody("with-a-standby")
    await layout.kill("postgres/db2/postmaster.pid")
    await layout.run("promote")
    await everybody("back-on-the-first")
    for visitor in visitors:
        assert visitor.answers == said
    assert len(openai.requests) >= len(visitors) * len(said)
