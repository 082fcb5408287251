"""Session ids and the names of their files."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from session import ids
from session.errors import BadSessionId
from session.ids import (
    Peer,
    PeerId,
    Provider,
    SessionId,
    file_name,
    from_file_name,
    is_shortened,
    parse,
    session_id,
)

words = st.text("abcxyz019_", min_size=1, max_size=8)
peers = st.text(st.characters(exclude_categories=()), min_size=1, max_size=30) | st.text(
    "aA-:%./~\0\n[*éß\ud800", min_size=1, max_size=90
)
sessions = st.builds(lambda agent, provider, peer: f"agent:{agent}:{provider}:{peer}", words, words, peers)


@pytest.mark.parametrize(
    ("peer", "session", "name"),
    [
        (
            ("telegram", "user:123456"),
            "agent:main:telegram:user:123456",
            "agent-main-telegram-user-123456.jsonl",
        ),
        (
            ("telegram", "chat:-100123:topic:7"),
            "agent:main:telegram:chat:-100123:topic:7",
            "agent-main-telegram-chat-%2D100123-topic-7.jsonl",
        ),
        (
            ("webchat", "session:9f2c00112233aabb"),
            "agent:main:webchat:session:9f2c00112233aabb",
            "agent-main-webchat-session-9f2c00112233aabb.jsonl",
        ),
        (("cli", "local"), "agent:main:cli:local", "agent-main-cli-local.jsonl"),
        (("cli", "A"), "agent:main:cli:A", "agent-main-cli-%41.jsonl"),
        (("cli", "my.work-2"), "agent:main:cli:my.work-2", "agent-main-cli-my.work%2D2.jsonl"),
        (("cli", "uid:1001"), "agent:main:cli:uid:1001", "agent-main-cli-uid-1001.jsonl"),
        (("cli", "é"), "agent:main:cli:é", "agent-main-cli-%C3%A9.jsonl"),
    ],
)
def test_documented_ids_and_names(peer: tuple[str, str], session: str, name: str) -> None:
    of = Peer(Provider(peer[0]), PeerId(peer[1]))
    assert session_id("main", of) == session
    assert parse(session) == ("main", of)
    assert file_name(session) == name
    assert from_file_name(name) == session


@pytest.mark.parametrize("agent", ["", "Main", "a b", "a:b", "a-b", "ä", "a\n", "../a"])
def test_agents_and_providers_are_words(agent: str) -> None:
    with pytest.raises(BadSessionId, match="agent id"):
        session_id(agent, Peer(Provider("cli"), PeerId("local")))
    with pytest.raises(BadSessionId, match="provider"):
        session_id("main", Peer(Provider(agent), PeerId("local")))


@pytest.mark.parametrize(
    "text", ["", "agent", "agent:main:cli", "agent:main:cli:", "user:main:cli:x", "agent:A:cli:x"]
)
def test_what_is_no_session_id(text: str) -> None:
    with pytest.raises(BadSessionId):
        parse(text)


@given(sessions)
@example("agent:main:cli:" + "\ud83d\ude00")
def test_names_give_their_ids_back(session: str) -> None:
    name = file_name(session)
    agent, peer = parse(session)
    assert session_id(agent, peer) == session
    if is_shortened(name):
        with pytest.raises(BadSessionId):
            from_file_name(name)
    else:
        assert from_file_name(name) == session


@given(sessions, sessions)
@example("agent:a:cli:x:y", "agent:a:cli:x-y")
@example("agent:a:cli:x-y", "agent:a:cli:x%2Dy")
@example("agent:a:cli:A", "agent:a:cli:a")
@example("agent:a:cli:ß", "agent:a:cli:ss")
@example("agent:a:cli:" + "x" * 300, "agent:a:cli:" + "x" * 301)
@example("agent:a:cli:" + "X" * 300, "agent:a:cli:" + "x" * 300)
@example("agent:a:cli:\ud83d\ude00", "agent:a:cli:😀")
def test_no_two_ids_share_a_name_not_even_where_case_is_folded(one: str, other: str) -> None:
    assume(one != other)
    assert file_name(one).casefold() != file_name(other).casefold()


@given(sessions)
@example("agent:a:cli:" + "x" * 500)
@example("agent:a:cli:../../etc/passwd")
def test_a_name_stays_in_its_folder(session: str) -> None:
    name = file_name(session)
    assert len(name.encode("ascii")) <= 180 + len(".jsonl")
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789_.-%~ABCDEF")
    assert not name.startswith(".")
    assert name.endswith(".jsonl")


@pytest.mark.parametrize("text", ["", "..", ".", "../x", "a/../b", "/etc/passwd", "\0", "...", ".hidden"])
def test_any_text_at_all_stays_in_the_folder(text: str) -> None:
    name = file_name(text)
    assert "/" not in name
    assert "\0" not in name
    assert name.removesuffix(".jsonl") not in (".", "..")
    assert file_name("." + text).startswith("%2E")


def test_long_ids_are_shortened_at_180_bytes() -> None:
    prefix = "agent:main:cli:"
    fits, long = prefix + "x" * (180 - len(prefix)), prefix + "x" * (181 - len(prefix))
    assert not is_shortened(file_name(fits))
    assert from_file_name(file_name(fits)) == fits
    assert is_shortened(file_name(long))
    assert file_name(long).startswith(file_name(fits)[:100] + "%~")


@pytest.mark.parametrize(
    "name",
    [
        "agent-main-cli-local",  # no suffix
        "agent-main-cli-local.jsonl.torn-20260101",
        "agent-main-cli-Local.jsonl",  # `L` is written %4C
        "agent-main-cli-%4c.jsonl",  # hex digits are upper case
        "agent-main-cli-%61.jsonl",  # `a` stands for itself
        "agent-main-cli-%.jsonl",
        "agent-main-cli-%4.jsonl",
        "agent-main-cli-% 4.jsonl",
        "agent-main-cli-%ZZ.jsonl",
        "agent-main-cli-%FF.jsonl",  # not UTF-8
        "agent-main-cli-é.jsonl",
        "agent-main-cli-\udcff.jsonl",  # how Python shows a name that is not UTF-8
        "agent-main-cli-%2F%2E.jsonl",
        "agent-main-cli-.jsonl",
        "agent-main-cli.jsonl",
        "notes.jsonl",
        ".jsonl",
        "",
    ],
)
def test_names_that_are_no_session_s(name: str) -> None:
    with pytest.raises(BadSessionId):
        from_file_name(name)


@given(st.text("agent-mcli%0123456789ABCDEFabcdef.~é", max_size=30))
def test_a_name_that_is_accepted_is_the_one_that_would_be_made(text: str) -> None:
    name = f"agent-main-cli-{text}{ids.SUFFIX}"
    try:
        session: SessionId = from_file_name(name)
    except BadSessionId:
        return
    assert file_name(session) == name
