"""A real daemon, brought into each phase of a turn and stopped there: how long that takes, and what is left.

async with Stopping(folder) as stopping:
    seconds = await stopping.stop("three tools")      # raises where something goes on
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from tests.fakes.daemon import Daemon
from tests.fakes.ndjson import Client
from tests.fakes.openai_behaviours import Calls
from tests.fakes.openai_server import CallTools, Hang, OpenAIServer, PingForEver, Say, Stall, Status

_TOOLS = '''
"""Functions that take their time; `mark` tells their processes from others."""

import subprocess
import time


def slow(mark: str, number: int = 0) -> str:
    """Waits, in a child of its own."""
    subprocess.Popen(["sleep", mark])
    print("at work", flush=True)
    time.sleep(3600)
    return "never"


def asks(path: str) -> str:
    """Would delete something."""
    return "deleted"
'''
_PATIENCE = 20.0


class Stopping:
    """One daemon with one slot, its model's server, and a client. The phases are tried one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = AsyncExitStack()
        self._numbers = 0
        self._mark = ""
        self.phases: dict[str, Callable[[], Awaitable[None]]] = {
            "waiting for the model": self._model,
            "streaming": self._streaming,
            "one tool": lambda: self._tools(1),
            "three tools": lambda: self._tools(3),
            "retrying": self._retrying,
            "waiting for approval": self._approval,
            "waiting for a slot": self._slot,
            "summarising": self._summarising,
        }

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        tools = self.folder / "tools.py"
        tools.write_text(_TOOLS)
        self.openai = await self._stack.enter_async_context(OpenAIServer())
        config = {
            "data_dir": "data",
            "model": {
                "base_url": self.openai.base_url,
                "name": "fake-1",
                "api_key": {"env": "OPENAI_API_KEY"},
            },
            "http": {"port": 0},
            "queue": {"running": 1},
            "agents": {"main": {"tools": ["slow", "asks"], "history_turns": 2, "summaries": False}},
            "tools": {
                "functions": {
                    "slow": {"call": f"{tools}:slow", "timeout": "1h"},
                    "asks": {"call": f"{tools}:asks", "ask": True},
                }
            },
        }
        self.daemon = Daemon(self.folder, config=config, env={"OPENAI_API_KEY": "sk-test-0123456789abcdef"})
        self._stack.push_async_callback(self.daemon.close)
        await self.daemon.start()
        self.client = await self.daemon.client()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def stop(self, phase: str) -> float:
        """Bring a turn there and stop it; seconds until it is closed, and nothing of it goes on."""
        left = self.openai.disconnects
        await self.phases[phase]()
        began = time.perf_counter()
        await self.client.send("stop")
        if phase == "summarising":
            await self.openai.until(lambda server: server.disconnects > left, _PATIENCE)
        else:
            outcome = (await self.client.until("done"))["outcome"]
            assert outcome == "stopped", f"the turn was {outcome} while {phase}"
        async with asyncio.timeout(_PATIENCE):
            while self.left_over():  # noqa: ASYNC110 - a process that ends tells nobody but its parent
                await asyncio.sleep(0.002)
        seconds = time.perf_counter() - began
        if phase == "waiting for a slot":
            await self._free_the_slot()
        return seconds

    def left_over(self) -> list[str]:
        """Processes of tools that live."""
        assert self.daemon.process is not None
        marks = [f"gateway.agent.tool_process\0{self.daemon.process.pid}\0"]
        marks += [f"sleep\0{self._mark}\0"] if self._mark else []
        found = []
        for entry in os.scandir("/proc"):
            try:
                line = Path(entry.path, "cmdline").read_text() if entry.name.isdecimal() else ""
            except OSError:
                continue  # it has just ended
            if any(mark in line for mark in marks):
                found.append(line)
        return found

    # -- phases ----------------------------------------------------------------------------------

    async def _say(self, text: str = "Go") -> str:
        self._numbers += 1
        id = f"m{self._numbers}"
        await self.client.send("message", id=id, text=text)
        return id

    async def _asked(self) -> None:
        count = len(self.openai.requests)
        await self._say()
        await self.openai.until(lambda server: len(server.requests) > count, _PATIENCE)

    async def _model(self) -> None:
        self.openai.script(Hang())
        await self._asked()

    async def _streaming(self) -> None:
        self.openai.script(Stall(3, Say("Once upon a time there was a moon.", size=4)))
        await self._say()
        await self.client.until("delta")

    async def _tools(self, count: int) -> None:
        self._mark = f"3600.{secrets.randbelow(10**9):09}"
        calls: Calls = [("slow", {"mark": self._mark, "number": number}) for number in range(count)]
        self.openai.script(CallTools(calls))
        await self._say()
        async with asyncio.timeout(_PATIENCE):
            while sum("sleep" in line for line in self.left_over()) < count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)

    async def _retrying(self) -> None:
        self.openai.script(Status(503, headers={"Retry-After": "30"}))
        await self._asked()

    async def _approval(self) -> None:
        self.openai.script(CallTools([("asks", {"path": "everything"})]))
        await self._say()
        await self.client.until("approval")

    async def _slot(self) -> None:
        self._other: Client = await self.daemon.client("other")
        self.openai.script(PingForEver())
        count = len(self.openai.requests)
        await self._other.send("message", id=f"o{self._numbers}", text="I was first")
        await self.openai.until(lambda server: len(server.requests) > count, _PATIENCE)
        await self.client.until("ack", id=await self._say())

    async def _free_the_slot(self) -> None:
        await self._other.send("stop")
        await self._other.until("done")
        await self._other.close()

    async def _summarising(self) -> None:
        for _ in range(3):
            self.openai.script(Say("Something to sum up."))
            await self._say("Tell me something")
            await self.client.until("done")
        self.openai.script(Hang())
        count = len(self.openai.requests)
        await self._say("/compact")
        await self.openai.until(lambda server: len(server.requests) > count, _PATIENCE)
