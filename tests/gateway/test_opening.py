"""What a database that is no store makes of a start; one that is away is in test_nodes_faults.py."""

import asyncio
import os

import pytest

from tests.conftest import Daemons
from tests.fakes.postgres_server import shared


@pytest.mark.parametrize(
    "url",
    ["postgresql://lunar@127.0.0.1:{port}/nowhere", "postgresql://locked:wr0ng@127.0.0.1:{port}/postgres"],
)
async def test_a_start_ends_where_only_a_person_can_help(daemons: Daemons, url: str) -> None:
    server = await asyncio.to_thread(shared)
    daemon = daemons(LUNAR_STORE__URL=url.format(port=server.port))
    await daemon.launch()
    assert await daemon.exit() == os.EX_CONFIG
    [line] = daemon.noise
    assert "(store.url): PostgreSQL at 127.0.0.1" in line
    assert "wr0ng" not in line


async def test_what_endangers_the_stored_is_told(daemons: Daemons) -> None:
    server = await asyncio.to_thread(shared)  # which does not wait for the disk
    async with daemons(LUNAR_STORE__URL=await asyncio.to_thread(server.database)) as daemon:
        told = [entry["warning"] for entry in daemon.log if entry["level"] == "warning"]
        settings = [text.partition(": ")[2].partition(" is ")[0] for text in told]
        assert settings == ["fsync", "full_page_writes"]


async def test_two_daemons_on_one_folder_are_one_too_many(daemons: Daemons) -> None:
    server = await asyncio.to_thread(shared)
    daemon = daemons(LUNAR_STORE__URL=await asyncio.to_thread(server.database))
    async with daemon:
        second = daemons(LUNAR_STORE__URL=await asyncio.to_thread(server.database))
        await second.launch(LUNAR_DATA_DIR=str(daemon.data_dir))
        assert await second.exit() == os.EX_TEMPFAIL
