"""What was said is found again, by its own session and for as long as it may be."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.agent.builtin_tools import BuiltinTools
from gateway.agent.tools import Scope, Toolbox
from gateway.agent.transcript_index import TranscriptIndex
from session.events import Assistant, Event, System, ToolResult, User
from session.ids import SessionId
from session.listing import index_path
from session.store import Store
from tests.fakes.processes import until

MINE = SessionId("agent:main:telegram:chat:-100:topic:7")
OTHER = SessionId("agent:main:telegram:chat:-100:topic:8")
TS = "2026-03-01T12:30:00.000Z"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    store.start()
    yield store
    await store.close()


@pytest.fixture
async def tools(store: Store) -> AsyncIterator[BuiltinTools]:
    tools = BuiltinTools(store)
    yield tools
    await tools.stop()


Search = Callable[..., "asyncio.Future[str]"]


@pytest.fixture
def search(tools: BuiltinTools) -> Search:
    async def ask(query: str, session: SessionId = MINE, turn: str = "now", limit: int = 8) -> str:
        args = {"query": query, "limit": limit}
        outcome = await Toolbox((), [tools]).call("search_transcript", args, Scope(session, turn, "c"))
        return outcome.text

    return ask  # type: ignore[return-value]  # an awaitable either way


def exchange(turn: str, asked: str, answered: str) -> list[Event]:
    return [
        User(content=asked, id=f"m-{turn}", ts=TS),
        System(name="started", turn=turn, messages=(f"m-{turn}",), attempt=1, ts=TS),
        Assistant(content=answered, turn=turn, answers=(f"m-{turn}",), finish="stop", ts=TS),
    ]


async def test_what_was_said_is_found_with_its_date(store: Store, search: Search) -> None:
    await store.append(MINE, exchange("t1", "My cat is called Pangur.", "A fine name."))
    assert await search("what is the CAT called?") == "[2026-03-01 12:30 UTC, user] My cat is called Pangur."
    assert await search("fine") == "[2026-03-01 12:30 UTC, assistant] A fine name."
    assert await search("dog") == "Nothing was found. Try fewer or other words."
    await store.append(MINE, exchange("t2", "And my dog Bran.", "Noted."))
    assert "Bran" in await search("dog")


async def test_nothing_of_another_session_is_found(store: Store, search: Search, tmp_path: Path) -> None:
    await store.append(MINE, exchange("t1", "The word is swordfish.", "I see."))
    await store.append(OTHER, exchange("t1", "The word is marlin.", "I see."))
    for query in ("word", "marlin OR swordfish", "*", 'marlin" OR words:marlin'):
        assert "marlin" not in await search(query)
        assert "swordfish" not in await search(query, OTHER)
    assert len(list((tmp_path / "index").iterdir())) == 2


async def test_the_question_itself_is_no_answer(store: Store, search: Search) -> None:
    await store.append(MINE, exchange("t1", "My cat is called Pangur.", "A fine name."))
    running = [
        User(content="What is my cat called?", id="m2", ts=TS),
        System(name="started", turn="t2", messages=("m2",), attempt=1, ts=TS),
        Assistant(content="I look for the cat.", turn="t2", finish="tool_calls", ts=TS),
        User(content="Quick, the cat!", id="m3", ts=TS),
    ]
    await store.append(MINE, running)
    assert await search("cat", turn="t2") == "[2026-03-01 12:30 UTC, user] My cat is called Pangur."


async def test_short_results_of_tools_are_found_and_long_ones_and_its_own_are_not(
    store: Store, search: Search
) -> None:
    def result(name: str, text: str) -> Event:
        return ToolResult(name=name, result=text, call_id=name, ok=True, turn="t1", ts=TS)

    found = [result("weather", "sleet"), result("x", "sleet " * 200), result("search_transcript", "sleet")]
    await store.append(MINE, found)
    assert await search("sleet") == "[2026-03-01 12:30 UTC, weather] sleet"


async def test_what_was_hidden_from_the_model_is_not_found(store: Store, search: Search) -> None:
    await store.append(MINE, exchange("t1", "I like figs.", "Figs are good."))
    await store.append(MINE, exchange("t2", "I like plums.", "Plums are good."))
    assert "figs" in await search("like figs")
    await store.append(MINE, [System(name="undo", turn="t2", id="u1", ts=TS)])
    assert "lums" not in await search("plums good")
    await store.append(MINE, [System(name="reset", id="r1", ts=TS)])
    assert await search("figs") == "Nothing was found. Try fewer or other words."


@pytest.mark.parametrize("damage", ["garbage", "empty", "another format", "deleted", "cut"])
async def test_an_index_is_made_again(store: Store, search: Search, tmp_path: Path, damage: str) -> None:
    await store.append(MINE, exchange("t1", "My cat is called Pangur.", "A fine name."))
    assert "Pangur" in await search("cat")
    path = index_path(tmp_path, MINE)
    match damage:
        case "garbage":
            path.write_bytes(b"x" * 10_000)
        case "empty":
            path.write_bytes(b"")
        case "another format":
            database = sqlite3.connect(path)
            database.execute("PRAGMA user_version = 99")
            database.close()
        case "deleted":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:5000])
    assert "Pangur" in await search("cat")


async def test_it_goes_with_its_session(store: Store, search: Search, tmp_path: Path) -> None:
    await store.append(MINE, exchange("t1", "My cat is called Pangur.", "A fine name."))
    assert "Pangur" in await search("cat")
    assert await store.delete(MINE)
    assert not index_path(tmp_path, MINE).exists()
    assert await search("cat") == "Nothing was found. Try fewer or other words."
    await store.append(MINE, exchange("t1", "My cat is called Tom.", "A fine name."))
    assert await search("called") == "[2026-03-01 12:30 UTC, user] My cat is called Tom."


async def test_a_session_that_is_deleted_while_it_is_read_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(MINE, exchange("t1", "My cat is called Pangur.", "A fine name."))
    index, read = TranscriptIndex(store), store.after

    async def after(*args: object) -> object:
        records = await read(*args)  # type: ignore[arg-type]  # whatever it was called with
        if records:
            await store.delete(MINE)
        return records

    monkeypatch.setattr(store, "after", after)
    assert await index.search(MINE, "t", ['"cat"'], 5, patience=5) == []
    assert not any(b"Pangur" in path.read_bytes() for path in (tmp_path / "index").iterdir())


async def test_an_index_is_brought_up_to_date_when_a_turn_begins(
    store: Store, tools: BuiltinTools, search: Search, tmp_path: Path
) -> None:
    def held() -> int:
        database = sqlite3.connect(index_path(tmp_path, MINE))
        try:
            return int(database.execute("SELECT count(*) FROM said").fetchone()[0])
        finally:
            database.close()

    await store.append(MINE, exchange("t1", "My cat is called Pangur.", "A fine name."))
    await tools.ready(MINE)
    assert not index_path(tmp_path, MINE).exists()  # nobody has ever searched here
    await search("cat")
    await store.append(MINE, exchange("t2", "My dog is called Bran.", "Another."))
    await tools.ready(MINE)
    await until(lambda: held() == 4)


async def test_its_files_are_for_the_gateway_alone(store: Store, search: Search, tmp_path: Path) -> None:
    await store.append(MINE, exchange("t1", "My cat is called Pangur.", "A fine name."))
    await search("cat")
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o700
    assert index_path(tmp_path, MINE).stat().st_mode & 0o777 == 0o600
