"""Several nodes over one database, and people who go to another node when theirs is gone."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.faults.people import Client
from tests.faults.world import World
from tests.scale.database import Rows

NODES = 3
_LOOK = 0.5  # seconds between two looks at what is stored


class Roamer(Client):
    """Somebody who knows the addresses of all nodes; every connection is to the next one."""

    def __init__(self, name: str, fleet: Fleet, home: int, *, web: bool, patience: float) -> None:
        super().__init__(name, fleet.daemons[home], web=web)
        self.patience = patience
        self.began: dict[str, float] = {}  # when it was said, by id
        self.waited: dict[str, float] = {}  # seconds to the event that answers it
        self.connections = 0
        self._fleet, self._home = fleet, home

    def place(self) -> Daemon:
        self.connections += 1
        nodes = self._fleet.daemons
        return nodes[(self._home + self.connections - 1) % len(nodes)]

    def say(self, text: str, *, command: bool = False) -> str:
        id = super().say(text, command=command)
        self.began[id] = time.monotonic()
        return id

    def _see(self, frame: dict[str, Any]) -> None:
        before = len(self.closed)
        super()._see(frame)
        for id, _ in self.closed[before:]:
            self.waited.setdefault(id, time.monotonic() - self.began[id])


class Fleet(World):
    """Daemons `n0`, `n1`, … on folders of their own, each with its own address of the database.

    What is stored is read from `rows` now and then: `raw` is as of the last `read`.
    """

    def __init__(
        self,
        folder: Path,
        openai: OpenAIServer,
        telegram: TelegramServer,
        dice: random.Random,
        urls: Sequence[str],
        rows: Rows,
        *,
        patience: float = 6.0,
    ) -> None:
        self._urls, self._patience = urls, patience
        self.rows = rows
        self._stored: dict[str, bytes] = {}
        super().__init__(folder, openai, telegram, dice, open_to_all=True, module="gateway")

    def _made(self) -> list[Daemon]:
        return [
            self._node(self.folder / f"n{number}", LUNAR_STORE__URL=url, LUNAR_STORE__NODE=f"n{number}")
            for number, url in enumerate(self._urls)
        ]

    def _client(self, name: str, *, web: bool) -> Client:
        home = len(self.clients) % len(self.daemons)
        client = Roamer(name, self, home, web=web, patience=self._patience)
        self.clients.append(client)
        return client

    @property
    def roamers(self) -> list[Roamer]:
        return [client for client in self.clients if isinstance(client, Roamer)]

    async def start(self) -> None:
        """All nodes; the first makes the tables."""
        await self.daemons[0].start()
        await self.rows.audit()
        await asyncio.gather(*(daemon.start() for daemon in self.daemons[1:]))

    async def stop(self) -> None:
        """SIGTERM to all at once; each must end well."""
        assert await asyncio.gather(*(daemon.stop() for daemon in self.daemons)) == [0] * len(self.daemons)

    async def close(self) -> None:
        """Whatever still runs ends."""
        for daemon in self.daemons:
            await daemon.close()

    async def read(self) -> None:
        """Look at what is stored."""
        self._stored = await self.rows.transcripts()

    def raw(self, session: str) -> bytes:
        return self._stored.get(session, b"")

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Wait for what people see, and what is stored."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self.read()
                    if condition():
                        return
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise AssertionError(f"never came: {what}") from None

    @property
    def broken(self) -> list[str]:
        """Lines of the logs that tell of a defect: an exception that nobody expected."""
        return [
            f"{daemon.folder.name}: {entry['event']}: {entry.get('exception')}"
            for daemon in self.daemons
            for entry in daemon.log
            if "exception" in entry or "exc_info" in entry
        ]
