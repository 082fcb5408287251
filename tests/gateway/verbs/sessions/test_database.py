"""The verbs of sessions where a database holds them: as with files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.verbs.sessions.database import Database
from session.events import Assistant, Usage, User, now
from session.ids import SessionId
from tests.fakes.postgres_server import shared
from tests.gateway.verbs.lunar import LOCAL, ran, wrote

Captured = pytest.CaptureFixture[str]
ANSWER = Assistant(
    content="Five past ten",
    turn="t1",
    answers=("m1",),
    finish="stop",
    model="fake-1",
    usage=Usage(7, 5),
    ts=now(),
)


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured) -> str:
    """A database with a conversation in it, which `lunar` uses."""
    made = shared().database()
    wrote(tmp_path / "old", User(content="What time is it?", id="m1", ts=now()), ANSWER)
    monkeypatch.setenv("LUNAR_STORE_URL", made)
    assert ran(capsys, "sessions", "import", str(tmp_path / "old")).code == 0
    return made


def sql(url: str, statement: str) -> str:
    return shared().sql(statement, url.rpartition("/")[2])


def test_every_reading_verb(url: str, data_dir: Path, capsys: Captured) -> None:
    [listed] = ran(capsys, "sessions", "list", "--json").out.splitlines()
    assert json.loads(listed)["session"] == LOCAL
    assert "Five past ten" in ran(capsys, "sessions", "show", "local").out
    assert "Five past ten" in ran(capsys, "sessions", "tail", "local", "-n", "1").out
    assert "What time" not in ran(capsys, "sessions", "tail", "local", "-n", "1").out
    assert "Five past ten" in ran(capsys, "sessions", "search", "past").out
    assert ran(capsys, "sessions", "verify").out == "1 session, 0 damaged\n"
    assert json.loads(ran(capsys, "sessions", "stats", "--json").out)["messages"]["assistant"] == 1
    assert "Five past ten" in ran(capsys, "sessions", "export", "local").out
    [row] = json.loads(ran(capsys, "usage", "--json").out)["rows"]
    assert (row["input"], row["output"]) == (7, 5)
    assert not data_dir.exists()  # nothing of it is a file


def test_what_grows_and_is_begun_anew_is_told(url: str, capsys: Captured) -> None:
    place = Database(url).growing(SessionId(LOCAL))
    assert [getattr(record.event, "content", None) for record in place.last(1)] == ["Five past ten"]
    assert list(place.news()) == []
    line = '{"role":"user","content":"More"}'
    sql(url, f"insert into lunar.event select key, seq + 1, '{line}' from lunar.session")
    sql(url, "update lunar.session set seq = seq + 1")
    assert [getattr(record.event, "content", None) for record in place.news()] == ["More"]
    assert list(place.news()) == []
    sql(url, "update lunar.session set tag = 'other'")
    assert len(list(place.news())) == 4
    assert capsys.readouterr().err == "(deleted, and begun anew)\n"


def test_a_line_that_is_missing_is_damage(url: str, capsys: Captured) -> None:
    sql(url, "delete from lunar.event where seq = 2")
    done = ran(capsys, "sessions", "verify")
    assert done.code == 1
    assert "the database has 2 of its 3 lines" in done.out


def test_a_session_is_deleted_beside_no_gateway(url: str, data_dir: Path, capsys: Captured) -> None:
    assert ran(capsys, "sessions", "delete", "local", "--yes").out == f"{LOCAL} is deleted.\n"
    assert sql(url, "select count(*) from lunar.event") == "0"
    assert "There is no session local." in ran(capsys, "sessions", "show", "local").err


def test_what_is_for_files_says_what_to_do_instead(url: str, tmp_path: Path, capsys: Captured) -> None:
    for arguments, words in (
        (("backup", str(tmp_path / "copy")), "pg_dump"),
        (("restore", str(tmp_path / "copy")), "pg_restore"),
        (("sessions", "archive", "local"), "are not archived"),
    ):
        done = ran(capsys, *arguments)
        assert done.code == os.EX_USAGE
        assert words in done.err
        assert len(done.err.splitlines()) == 1
