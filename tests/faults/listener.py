"""A client that is a process of its own, so that it can be stopped: `python -m tests.faults.listener`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

from tests.fakes.daemon import ROOT, Daemon
from tests.faults.people import Client


class Listener:
    """Somebody who only looks on in a terminal's session; `ids` has what was seen answered, in order."""

    def __init__(self, socket: Path, session: str) -> None:
        self.ids: list[str] = []
        self._arguments = [str(socket), session]

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.listener", *self._arguments, cwd=ROOT, stdout=subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._process.kill()
        await self._process.wait()
        await self._reading

    def stop(self) -> None:
        """It stands still, and its connection with it."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.ids.append(line.decode().strip())


async def main(socket: str, session: str) -> None:
    """Tell the id of each message of a session that is answered."""
    place: Any = SimpleNamespace(socket=Path(socket))
    client, told = Client(session, cast(Daemon, place), web=False), 0
    living = asyncio.create_task(client.live())
    while not living.done():
        await asyncio.sleep(0.05)
        for id, _ in client.closed[told:]:
            print(id, flush=True)
        told = len(client.closed)
    living.result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
