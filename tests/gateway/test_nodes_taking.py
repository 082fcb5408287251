"""A node takes a session whose latest lines it has not read yet: nothing in them is answered again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from session.events import Assistant, System, User
from session.postgres import PostgresStore
from tests.fakes import kept
from tests.fakes.gateway import Gateway
from tests.session.stores import HERE

LINES = 450  # more than two pages


async def test_a_turn_waits_for_all_that_the_other_node_stored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNAR_TEST_STORE", "postgres")
    home = folder / "a"
    home.mkdir()
    async with Gateway(home) as gateway:
        found = kept.database(home)
        assert found is not None
        other = PostgresStore(found.url, folder / "b", "b")
        await other.open()
        lane = await gateway.lane()
        gateway.store.heard = lambda node, text: None  # type: ignore[attr-defined] # its notices are lost
        await other.append(HERE, [User(content="Hello?", id="m1")])
        await other.append(HERE, [System(name="note", content=str(n)) for n in range(LINES)])
        await other.append(HERE, [Assistant(content="Hello!", turn="t1", answers=("m1",), finish="stop")])
        end = await other.end(HERE)
        assert not lane.conversation.open
        await other.release(HERE)
        async with asyncio.timeout(20):
            while not (lane.owner and lane.conversation.cursor == end):  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0.01)
        await gateway.quiet()
        assert gateway.runner.asked == []
        assert await other.end(HERE) == end
        await other.close()
