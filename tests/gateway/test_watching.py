"""Who watches a session that another node runs comes and goes while the owner is asked for."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from gateway.lane import Lane
from gateway.notices import Notice
from gateway.router import Router
from gateway.rules import Rules
from gateway.watching import Watching
from session.ids import SessionId
from tests.fakes.gateway import ScriptedRunner
from tests.fakes.postgres_server import shared
from tests.session.postgres_nodes import nodes
from tests.session.stores import HERE, user


async def test_nobody_is_told_for_whoever_left_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Notice] = []
    async with nodes(shared().database(), tmp_path, "a", "b") as (a, b):
        await a.store.append(HERE, [user("m1")])
        watching = Watching(b.store, cast(Router, None), lambda node, notice: told.append(notice))
        lane = Lane(HERE, b.store, ScriptedRunner(), asyncio.Semaphore(), Rules(), shared=b.store)
        await lane.open()
        assert await watching.watch(lane) is not None
        assert len(told) == 1
        watching.left(lane)
        told.clear()
        owner = b.store.owner

        async def leaving(session: SessionId) -> int | None:
            found = await owner(session)
            watching.left(lane)
            return found

        monkeypatch.setattr(b.store, "owner", leaving)
        assert await watching.watch(lane) is None
        assert not told
