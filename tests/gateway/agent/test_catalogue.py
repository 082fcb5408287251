"""Which tools there are, and which of them an agent may call."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.agent.catalogue import Catalogue
from gateway.agent.tools import Scope
from gateway.config import Tools
from gateway.errors import ConfigError
from session.ids import SessionId
from session.store import Store

SESSION = SessionId("agent:main:cli:local")
BUILTIN = ["get_current_datetime", "search_transcript", "read_attachment"]
NOTE = {"call": "nowhere.py:note"}
FILES = {"url": "http://127.0.0.1:9/mcp"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    store.start()
    yield store
    await store.close()


def catalogue(store: Store, **settings: object) -> Catalogue:
    return Catalogue(Tools.model_validate(settings), store)


@pytest.mark.parametrize(
    ("entry", "fine"),
    [
        ("get_current_datetime", True),
        ("note", True),
        ("get_*", True),
        ("*", True),
        ("files__read", True),  # it may come with the server
        ("files__*", True),
        ("f*__read", True),
        ("nope", False),
        ("file__*", False),
        ("files_*", False),
        ("Note", False),
        ("", False),
        ("notes*", False),
    ],
)
async def test_an_entry_that_can_never_be_a_tool_is_a_problem(store: Store, entry: str, fine: bool) -> None:
    made = catalogue(store, functions={"note": NOTE}, mcp={"files": FILES})
    assert (made.problem(entry) is None) is fine
    if not fine:
        known = ", ".join([*BUILTIN, "note", "files__*"])
        assert made.problem(entry) == f"there is no tool {entry!r}; there are: {known}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"functions": {"search_transcript": NOTE}}, "tools.functions.search_transcript: a built-in tool"),
        ({"functions": {"files": NOTE}, "mcp": {"files": FILES}}, "tools.functions.files: an MCP server"),
        (
            {"functions": {"files__x": NOTE}, "mcp": {"files": FILES}},
            "tools.functions.files__x: the names of",
        ),
        ({"mcp": {"a__b": FILES}}, "tools.mcp.a__b: two underscores"),
    ],
)
async def test_two_tools_never_share_a_name(store: Store, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        catalogue(store, **settings)


async def test_an_agent_has_what_its_list_names(store: Store) -> None:
    made = catalogue(store)
    made.start()
    for allowed, names in (
        (BUILTIN, BUILTIN),
        (["*_transcript"], ["search_transcript"]),
        ([], []),
        (["*"], BUILTIN),
    ):
        box = made.toolbox(allowed)
        await box.ready(SESSION)
        assert [schema["function"]["name"] for schema in box.schemas()] == names
    outcome = await made.toolbox(["read_attachment"]).call(
        "get_current_datetime", {}, Scope(SESSION, "t", "c")
    )
    assert outcome.text == "There is no tool 'get_current_datetime'. The tools are: read_attachment."
    await made.stop()


async def test_what_does_not_work_is_told_to_operators_and_shortly_to_people(store: Store) -> None:
    made = catalogue(store, functions={"note": NOTE}, mcp={"files": FILES})
    made.start()
    assert made.states == {"note": "starting", "files": "starting"}
    box = made.toolbox(["*"])
    await box.ready(SESSION)
    assert made.states["note"] == "nowhere.py: there is no such file"
    assert made.states["files"].startswith("ConnectError: ")
    assert set(made.faults) == {"tools.functions.note", "tools.mcp.files"}
    assert made.public == {"note": "down", "files": "down"}
    await made.stop()
