"""Everything that a trial on several nodes needs: servers, proxies, and the fleet itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.fakes.openai_server import OpenAIServer
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.proxy import Proxy
from tests.fakes.telegram_server import TelegramServer
from tests.faults.world import TOKEN
from tests.scale.database import Rows
from tests.scale.fleet import NODES, Fleet

DATABASE = "lunar"


class Stage(NamedTuple):
    """The fleet runs, on a database of its own; each node reaches the primary through its proxy alone."""

    fleet: Fleet
    primary: PostgresServer
    standby: PostgresServer | None
    proxies: list[Proxy]  # none where there is a standby


@asynccontextmanager
async def staged(
    folder: Path, seed: int, *, standby: bool = False, patience: float = 6.0
) -> AsyncIterator[Stage]:
    """A failed trial says its seed, and what the nodes logged last."""
    async with AsyncExitStack() as stack:
        servers = await asyncio.to_thread(_servers, stack, standby)
        rows = await stack.enter_async_context(Rows(*(server.url(DATABASE) for server in servers)))
        await rows.people(NODES)
        proxies = []
        if not standby:
            proxies = [await stack.enter_async_context(Proxy(servers[0].port)) for _ in range(NODES)]
        ports = [[proxy.port] for proxy in proxies] or [[server.port for server in servers]] * NODES
        openai = await stack.enter_async_context(OpenAIServer())
        telegram = await stack.enter_async_context(TelegramServer(TOKEN))
        urls = [_url(f"n{number}", ports[number]) for number in range(NODES)]
        fleet = Fleet(folder / "w", openai, telegram, random.Random(seed), urls, rows, patience=patience)
        try:
            await fleet.start()
            yield Stage(fleet, servers[0], servers[1] if standby else None, proxies)
        except (AssertionError, TimeoutError) as error:
            last = [(daemon.folder.name, daemon.log[-4:], daemon.noise[-4:]) for daemon in fleet.daemons]
            raise AssertionError(
                f"LUNAR_TEST_SEED={seed}: {error!r} {last} {chr(10).join(fleet.broken)}"
            ) from error
        finally:
            await fleet.close()


def _servers(stack: AsyncExitStack, standby: bool) -> list[PostgresServer]:
    primary = PostgresServer()
    stack.callback(primary.close)
    primary.start()
    primary.sql(f"create database {DATABASE}")
    return [primary, primary.standby()] if standby else [primary]


def _url(user: str, ports: list[int]) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    # The failing over is asked for as operators do it.
    more = "?target_session_attrs=read-write" if len(ports) > 1 else ""
    return f"postgresql://{user}@{hosts}/{DATABASE}{more}"
