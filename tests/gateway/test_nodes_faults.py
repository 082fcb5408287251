"""Two daemons over one PostgreSQL, of which one dies, sleeps, stops, or loses the database."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Daemons
from tests.fakes.openai_server import OpenAIServer, Say, Stall
from tests.fakes.postgres_server import PostgresServer
from tests.gateway.nodes_stage import LONG, Pair, cursors, said, text, turns

TAKEN_OVER = 10.0  # seconds, at most, from a node's death


@pytest.fixture
async def pair(daemons: Daemons, openai: OpenAIServer) -> AsyncIterator[Pair]:
    server = await asyncio.to_thread(PostgresServer().start)
    url = await asyncio.to_thread(server.database)
    a, b = (daemons(server=openai, LUNAR_STORE__URL=url, LUNAR_STORE__NODE=name) for name in "ab")
    yield Pair(a, b, server, url)
    await asyncio.gather(a.close(), b.close())
    await asyncio.to_thread(server.close)


async def test_a_node_is_killed_in_mid_turn_and_the_other_one_answers(
    pair: Pair, openai: OpenAIServer
) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    openai.script(Stall(5, LONG), Say("The answer."))
    await here.say("Hello", "m1")
    await said(there, "A beginning")
    killed = time.monotonic()
    await pair.a.kill()
    assert (await there.until("started", attempt=2))["answers"] == ["m1"]
    assert time.monotonic() - killed < TAKEN_OVER + 2  # the machine that tests may be slow
    assert (await there.closed("m1"))["content"] == "The answer."
    assert len(await pair.closing("m1")) == 1
    assert len(set(cursors(there))) == len(cursors(there))
    await pair.a.start()
    back = await pair.a.client()
    assert (await back.closed("m1"))["content"] == "The answer."
    await back.ask("And now?", "m2")
    assert len(await pair.closing("m2")) == 1


async def test_a_node_that_came_back_shows_what_the_other_one_says(pair: Pair) -> None:
    """It is another one for those who speak to it: what they say to the one that it was nobody hears."""
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    await here.ask("Hello", "m1")
    await there.closed("m1")
    await pair.sql("update lunar.node set dead = true where name = 'b'")
    async with asyncio.timeout(TAKEN_OVER):
        while await pair.sql("select 1 from lunar.node where name = 'b' and not dead") != "1":  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
    await there.say("And now?", "m2")  # its own node stores it, the other one answers
    assert (await there.closed("m2"))["content"] == "echo: And now?"


async def test_a_node_that_slept_writes_nothing_and_shows_what_the_other_one_says(
    pair: Pair, openai: OpenAIServer
) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    openai.script(Stall(5, LONG), Say("The answer of b."))
    await here.say("Hello", "m1")
    await said(here, "A beginning")
    await said(there, "A beginning")
    pair.a.signal(signal.SIGSTOP)
    try:
        assert (await there.closed("m1"))["content"] == "The answer of b."
        openai.release.set()  # the rest of the first answer waits for the one that sleeps
    finally:
        pair.a.signal(signal.SIGCONT)
    closing = await here.closed("m1")
    assert closing["content"] == "The answer of b."
    await here.until("done")
    assert len(await pair.closing("m1")) == 1
    openai.script(Stall(5, LONG))
    openai.release.clear()
    await here.say("Once more", "m2")
    await here.until("started")
    await here.until("delta")
    openai.release.set()
    assert (await here.closed("m2"))["content"] == LONG.text
    await there.closed("m2")
    assert cursors(here) == cursors(there)
    assert len(set(cursors(here))) == len(cursors(here))
    assert turns(pair.a) == ["left_open"]


async def test_the_database_is_restarted_in_mid_turn(pair: Pair, openai: OpenAIServer) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    openai.script(Stall(5, LONG))
    await here.say("Hello", "m1")
    await said(there, "A beginning")
    await asyncio.to_thread(pair.server.stop)
    await pair.a.logged("channel ready", channel="http")
    await until_ready(pair, 503)
    assert (await pair.a.get("/healthz"))[0] == 200
    await there.send("message", id="m2", text="Are you there?")
    assert (await there.until("error", id="m2"))["code"] == "storage_unavailable"
    openai.release.set()
    await here.until("delta")
    await asyncio.to_thread(pair.server.start)
    await until_ready(pair, 200)
    for client in (here, there):
        assert (await client.closed("m1"))["content"] == LONG.text
    await there.ask("Are you there?", "m2")
    assert (await here.closed("m2"))["content"] == "echo: Are you there?"
    for id in ("m1", "m2"):
        assert len(await pair.closing(id)) == 1


async def until_ready(pair: Pair, status: int) -> None:
    """Wait until both nodes say so."""
    async with asyncio.timeout(30):
        for node in (pair.a, pair.b):
            while (await node.get("/readyz"))[0] != status:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.1)


async def test_a_database_that_is_away_at_the_start_is_waited_for(pair: Pair, openai: OpenAIServer) -> None:
    await asyncio.to_thread(pair.server.stop)
    await pair.a.start()
    status, body = await pair.a.get("/readyz")
    assert status == 503
    assert "store" in body["why"]
    stranger = await pair.a.connect()
    await stranger.send("hello", protocol=1, session="local")
    assert (await stranger.until("error"))["code"] == "storage_unavailable"
    await asyncio.to_thread(pair.server.start)
    await pair.a.logged("the database is there")
    client = await pair.a.client()
    assert (await client.ask("Hello", "m1"))["content"] == "echo: Hello"


async def test_a_node_that_stops_hands_its_sessions_over_at_once(pair: Pair, openai: OpenAIServer) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    other = await pair.a.client("other")
    await other.ask("Hello", "o1")
    openai.script(Stall(5, LONG))
    await here.say("Hello", "m1")
    await said(there, "A beginning")
    pair.a.signal(signal.SIGTERM)
    await pair.a.logged("stopping")
    # Nobody is refused meanwhile: what comes to it is answered by the other node.
    assert (await other.ask("Still there?", "o2"))["content"] == "echo: Still there?"
    assert (await here.say("And this?", "m2"))["queued"] == 1
    openai.release.set()
    assert (await here.closed("m1"))["content"] == LONG.text
    assert (await there.closed("m2"))["content"] == "echo: And this?"
    assert await pair.a.exit() == 0
    assert turns(pair.a) == ["completed", "completed"]
    assert turns(pair.b) == ["completed", "completed"]
    for id in ("m1", "m2"):
        assert len(await pair.closing(id)) == 1
    assert text(there).startswith("A beginning")
