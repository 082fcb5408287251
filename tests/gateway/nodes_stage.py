"""Two daemons over one PostgreSQL, and what is stored by them."""

import asyncio
import json
from typing import Any

from tests.fakes.daemon import Daemon
from tests.fakes.ndjson import Client
from tests.fakes.openai_server import Say
from tests.fakes.postgres_server import PostgresServer

LOCAL = "agent:main:cli:local"
LONG = Say("A beginning, and then the rest of it.")


class Pair:
    """The nodes `a` and `b`, not started yet, over a database of a server."""

    def __init__(self, a: Daemon, b: Daemon, server: PostgresServer, url: str) -> None:
        self.a = a
        self.b = b
        self.server = server
        self._database = url.rpartition("/")[2]

    async def start(self) -> None:
        await asyncio.gather(self.a.start(), self.b.start())

    async def sql(self, query: str) -> str:
        """What a query gives, a row a line."""
        return await asyncio.to_thread(self.server.sql, query, self._database)

    async def events(self, session: str = LOCAL) -> list[dict[str, Any]]:
        """What is stored of a session."""
        rows = await self.sql(
            "select convert_from(e.line, 'UTF8') from lunar.event e join lunar.session s on s.key = e.session"
            f" where s.id = convert_to('{session}', 'UTF8') order by e.seq"
        )
        return [json.loads(row) for row in rows.splitlines()]

    async def closing(self, id: str) -> list[dict[str, Any]]:
        """The stored events that answer a message: there must be one."""
        return [event for event in await self.events() if id in event.get("answers", ())]


def text(client: Client) -> str:
    """All that was said live."""
    return "".join(frame["text"] for frame in client.frames if frame["type"] == "delta")


async def said(client: Client, wanted: str) -> None:
    """Read on until so much was said live."""
    while wanted not in text(client):
        await client.until("delta")


def cursors(client: Client) -> list[str]:
    """Of the events that came, but for the transcript's header, which its maker is not told."""
    frames = [frame for frame in client.frames if frame["type"] == "event"]
    return [frame["cursor"] for frame in frames if frame["event"].get("name") != "session"]


def turns(daemon: Daemon) -> list[str]:
    """How the turns ended that the node ran."""
    return [entry["outcome"] for entry in daemon.log if entry["event"] == "turn"]
