"""Two daemons over one PostgreSQL: whoever is at one of them is served as at the other."""

import asyncio
from pathlib import Path

import pytest

from session.events import System, User
from session.ids import SessionId
from tests.conftest import Daemons
from tests.fakes.gateway import Gateway
from tests.fakes.openai_server import CallTools, OpenAIServer, Say, Stall
from tests.fakes.postgres_server import shared
from tests.fakes.processes import until
from tests.gateway.nodes_stage import LOCAL, LONG, Pair, cursors, said, text, turns


@pytest.fixture
async def pair(daemons: Daemons, openai: OpenAIServer) -> Pair:
    server = await asyncio.to_thread(shared)
    url = await asyncio.to_thread(server.database)
    a, b = (daemons(server=openai, LUNAR_STORE__URL=url, LUNAR_STORE__NODE=name) for name in "ab")
    return Pair(a, b, server, url)


async def test_who_is_at_the_other_node_sees_the_same_live(pair: Pair, openai: OpenAIServer) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    openai.script(Stall(5, LONG))
    await here.say("Hello", "m1")
    await said(here, "A beginning")
    await said(there, "A beginning")
    openai.release.set()
    for client in (here, there):
        closing = await client.closed("m1")
        assert closing["content"] == LONG.text
        await client.until("done")
    assert cursors(here) == cursors(there)
    assert [frame["turn"] for frame in there.frames if frame["type"] == "started"] == [closing["turn"]]
    assert LONG.text.startswith(text(there))


async def test_a_reply_goes_on_for_who_comes_to_the_other_node_in_its_middle(
    pair: Pair, openai: OpenAIServer
) -> None:
    await pair.start()
    here = await pair.a.client()
    openai.script(Stall(5, LONG))
    ack = await here.say("Hello", "m1")
    await said(here, "A beginning")
    await here.close()
    there = await pair.b.connect()
    welcome = await there.hello(after=ack["cursor"])
    assert welcome["running"]["text"].startswith("A beginning")
    assert welcome["running"]["answers"] == ["m1"]
    openai.release.set()
    assert (await there.closed("m1"))["content"] == LONG.text
    await there.until("done")
    assert welcome["running"]["text"] + text(there) in (LONG.text, welcome["running"]["text"])
    assert len(set(cursors(there))) == len(cursors(there))
    assert [event["role"] for event in there.events if event["role"] != "system"] == ["assistant"]


async def test_a_message_to_any_node_is_answered_by_the_one_that_has_the_session(
    pair: Pair, openai: OpenAIServer
) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    openai.script(Stall(5, LONG))
    await here.say("Hello", "m1")
    await said(there, "A beginning")
    assert (await there.say("And this?", "m2"))["queued"] == 1
    again = await there.say("And this?", "m2")
    assert again["cursor"] == (await here.say("And this?", "m2"))["cursor"]
    await there.send("message", id="m2", text="Something else")
    assert (await there.until("error"))["code"] == "id_conflict"
    openai.release.set()
    for client in (here, there):
        assert (await client.closed("m2"))["content"] == "echo: And this?"
    assert len(await pair.closing("m1")) == len(await pair.closing("m2")) == 1
    assert len(openai.requests) == 2
    assert turns(pair.b) == []


async def test_what_only_the_owner_can_do_is_done_from_anywhere(pair: Pair, openai: OpenAIServer) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    openai.script(Stall(5, LONG))
    await here.say("Hello", "m1")
    await said(there, "A beginning")
    assert await there.command("/stop") == "Stopped."
    assert (await here.closed("m1"))["finish"] == "stopped"
    assert (await there.closed("m1"))["finish"] == "stopped"
    assert await there.command("/stop") == "Nothing is running."
    await there.send("message", id="r1", text="/retry")
    await there.until("ack", id="r1")
    assert (await there.closed("r1"))["finish"] == "stop"
    assert (await here.closed("r1"))["finish"] == "stop"
    assert (await there.command("/undo", "u1")).startswith("Taken back: “Hello”")
    assert await there.command("/undo", "u1") == "/undo was carried out already."
    assert await there.command("/compact") == "There is nothing to summarise yet."
    assert (await there.command("/new")).startswith("A new conversation begins.")
    assert "as node a, one of 2" in await there.command("/status")
    await there.ask("Who are you?", "m3")
    assert [message["content"] for message in openai.requests[-1].body["messages"][1:]] == ["Who are you?"]
    assert turns(pair.b) == []


async def test_a_stop_frame_and_a_retry_frame_reach_the_owner(pair: Pair, openai: OpenAIServer) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    openai.script(Stall(5, LONG))
    await here.say("Hello", "m1")
    await said(there, "A beginning")
    await there.send("stop")
    assert (await there.closed("m1"))["finish"] == "stopped"
    await there.send("retry", id="m2", of="m1")
    await there.until("ack", id="m2")
    assert (await there.closed("m2"))["finish"] == "stop"
    assert len(await pair.closing("m2")) == 1


async def test_a_tool_is_allowed_at_the_other_node(
    daemons: Daemons, openai: OpenAIServer, folder: Path
) -> None:
    source = 'def shout(text: str) -> str:\n    """Say it loudly."""\n    return text.upper()\n'
    (folder / "mine.py").write_text(source)
    tool = {"shout": {"call": f"{folder}/mine.py:shout", "ask": True}}
    config = {"tools": {"functions": tool}, "agents": {"main": {"tools": ["shout"]}}}
    server = await asyncio.to_thread(shared)
    url = await asyncio.to_thread(server.database)
    a, b = (
        daemons(server=openai, config=config, LUNAR_STORE__URL=url, LUNAR_STORE__NODE=name) for name in "ab"
    )
    pair = Pair(a, b, server, url)
    await pair.start()
    here, there = await a.client(), await b.client()
    short = CallTools([("shout", {"text": "b"})], then=Say("Both."))
    openai.script(CallTools([("shout", {"text": "x" * 20_000})], then=short))
    await here.say("Shout twice", "m1")
    asked = await there.until("approval")
    await there.send("approve", call_id=asked["call_id"], allow=True)
    asked = await there.until("approval")
    late = await b.client()
    assert (await late.until("approval"))["call_id"] == asked["call_id"]
    assert (await late.command("/yes")).startswith("Allowed: shout")
    assert (await there.closed("m1"))["content"] == "Both."
    results = [event["result"] for event in await pair.events() if event["role"] == "tool_result"]
    assert results == ["X" * 20_000, "B"]


async def test_a_session_is_deleted_from_the_other_node(pair: Pair, openai: OpenAIServer) -> None:
    await pair.start()
    here, there = await pair.a.client(), await pair.b.client()
    openai.script(Stall(5, LONG))
    await here.say("Hello", "m1")
    await said(there, "A beginning")
    await there.send("control", id="c1", verb="delete", args={"session": LOCAL})
    assert (await there.until("result", id="c1"))["data"] == {"deleted": True}
    for client in (here, there):
        assert (await client.until("done"))["outcome"] == "stopped"
    assert await pair.events() == []
    await there.ask("Hello again", "m1")
    assert (await here.closed("m1"))["content"] == "echo: Hello again"
    assert len(await pair.closing("m1")) == 1


async def test_a_session_of_an_agent_that_is_unknown_here_is_left_to_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNAR_TEST_STORE", "postgres")
    monkeypatch.setattr("gateway.nodes._ELSEWHERE", 0.01)
    session = SessionId("agent:of_another_node:cli:local")
    async with Gateway(folder) as gateway:
        assert gateway.nodes
        store = gateway.nodes.store
        await store.append(session, [User(content="Hello", id="m1")])
        assert store.holds(session)
        store.woken(session)
        await until(lambda: not store.holds(session))


async def test_a_command_that_two_nodes_were_told_has_one_effect(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNAR_TEST_STORE", "postgres")
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        first = await lane.record([System(name="reset", id="c1")])
        assert await lane.record([System(name="reset", id="c1")]) == first
        assert sum(b'"c1"' in line for line in gateway.lines()) == 1
