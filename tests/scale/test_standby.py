"""A standby that says nothing: what it did not get is shown to nobody, so that nobody can acknowledge it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from session import postgres_database
from session.errors import StorageError
from session.events import User
from session.ids import SessionId
from session.postgres import PostgresStore
from tests.fakes.postgres_server import PostgresServer

SESSION = SessionId("agent:main:cli:work")


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.close()


async def _texts(store: PostgresStore) -> list[str]:
    return [
        record.event.content
        for record in await store.after(SESSION, None, 10)
        if isinstance(record.event, User)
    ]


async def test_what_only_the_primary_has_is_seen_by_nobody(
    primary: PostgresServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "_ANSWER", 1.0)
    url = await asyncio.to_thread(primary.database)
    ours, others = PostgresStore(url, folder / "a", "a"), PostgresStore(url, folder / "b", "b")
    await ours.open()
    await others.open()
    await ours.append(SESSION, [User(content="both have this", id="m1")])
    standby = await asyncio.to_thread(primary.standby)
    standby.pause()
    with pytest.raises(StorageError):
        await ours.append(SESSION, [User(content="the primary alone has this", id="m2")])
    assert await _texts(others) == ["both have this"]
    cursor = await others.end(SESSION)
    standby.cont()
    async with asyncio.timeout(30):
        while await _texts(others) != ["both have this", "the primary alone has this"]:  # noqa: ASYNC110 - its row
            await asyncio.sleep(0.05)
    assert await others.end(SESSION) != cursor
    await ours.close()
    await others.close()
