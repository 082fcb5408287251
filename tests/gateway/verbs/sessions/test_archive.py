"""`lunar sessions archive`, and that every other verb reads what it has put away."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from session import archive, ids
from session.events import User
from session.lock import DirectoryLock
from session.store import Store
from tests.conftest import Daemons
from tests.gateway.verbs.lunar import LOCAL, archived, path, ran, wrote
from tests.gateway.verbs.sessions.said import CONVERSATION

WORK = "agent:main:cli:work"


@pytest.fixture
def quiet(data_dir: Path) -> Path:
    """A data directory in which nothing is open, as the gateway leaves it."""
    data_dir.mkdir()
    store = Store(data_dir)
    store.start()
    asyncio.run(store.close())
    return data_dir


def packed(data_dir: Path, session: str = LOCAL) -> Path:
    return archive.path_of(data_dir, ids.file_name(session))


def aged(file: Path, days: float) -> None:
    moment = file.stat().st_mtime - days * 86_400
    os.utime(file, (moment, moment))


def test_every_verb_reads_it(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, *CONVERSATION)

    def everything() -> list[object]:
        verbs = ("show local", "tail local", "search mean", "verify", "verify local", "export local", "stats")
        figures = json.loads(ran(capsys, "sessions", "stats", "--json").out)
        return [
            *(ran(capsys, "sessions", *line.split()) for line in verbs[:-1]),
            {key: figures[key] for key in ("messages", "days", "input", "sessions")},
        ]

    before = everything()
    archived(data_dir)
    assert everything() == before
    assert ran(capsys, "sessions", "list").out.endswith(" B  archived\n")
    assert json.loads(ran(capsys, "sessions", "list", "--json").out)["archived"]
    assert ran(capsys, "sessions", "delete", "local", "--yes") == (0, f"{LOCAL} is deleted.\n", "")
    assert ran(capsys, "sessions", "list").out == ""


@pytest.mark.parametrize("days", ["-3", "-0.1", "nan", "inf", "-inf", "1e999"])
def test_a_number_of_days_that_is_none(quiet: Path, capsys: pytest.CaptureFixture[str], days: str) -> None:
    file = wrote(quiet, *CONVERSATION)
    aged(file, -9)  # by a clock that was wrong
    refused = (os.EX_USAGE, "", "lunar: --days takes a number from 0 on.\n")
    assert ran(capsys, "sessions", "archive", f"--days={days}") == refused
    assert file.exists()


def test_by_name(quiet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(quiet, *CONVERSATION)
    wrote(quiet, *CONVERSATION, session=WORK)
    assert ran(capsys, "sessions", "archive", "work") == (0, "1 session archived.\n", "")
    assert (packed(quiet, WORK).exists(), path(quiet, WORK).exists()) == (True, False)
    assert path(quiet).exists()
    assert ran(capsys, "sessions", "archive", "work", "local") == (
        1, "1 session archived.\n", f"{WORK} stays as it is: it is archived already.\n"
    )  # fmt: skip
    assert ran(capsys, "sessions", "archive", "nobody").code == 1


def test_by_age(quiet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aged(wrote(quiet, *CONVERSATION), 31)
    aged(wrote(quiet, *CONVERSATION, session=WORK), 29)
    assert ran(capsys, "sessions", "archive", "--days", "30") == (0, "1 session archived.\n", "")
    assert packed(quiet).exists()
    assert path(quiet, WORK).exists()
    assert ran(capsys, "sessions", "archive", "--days", "30").out == "0 sessions archived.\n"


@pytest.mark.parametrize("line", [["archive"], ["archive", "local", "--days", "3"]])
def test_one_or_the_other(line: list[str], quiet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(quiet, *CONVERSATION)
    assert ran(capsys, "sessions", *line) == (
        os.EX_USAGE, "", "lunar: Say which sessions, or --days.\n"
    )  # fmt: skip
    assert path(quiet).exists()


def test_what_may_be_open_and_what_another_holds_stays(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, User(content="Hello", id="m1"))  # and no open.log says that anything is closed
    assert ran(capsys, "sessions", "archive", "local") == (
        1, "0 sessions archived.\n", f"{LOCAL} stays as it is: something in it is still open.\n"
    )  # fmt: skip
    lock = DirectoryLock(data_dir)
    lock.acquire()
    try:
        code, _, err = ran(capsys, "sessions", "archive", "local")
    finally:
        lock.release()
    assert (code, "does not answer" in err) == (os.EX_TEMPFAIL, True)
    assert path(data_dir).exists()


async def test_by_a_running_gateway(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = daemons()
    async with daemon:
        monkeypatch.setenv("LUNAR_DATA_DIR", str(daemon.data_dir))
        monkeypatch.setenv("LUNAR_HTTP__PORT", "0")
        client = await daemon.client("work")
        await client.ask("Hello")
        ended = await asyncio.to_thread(ran, capsys, "sessions", "archive", "work")
        assert ended.code == 1
        assert ended.err == f"{WORK} stays as it is: somebody is in it, or was a minute ago.\n"
        other = "agent:main:cli:other"
        wrote(daemon.data_dir, *CONVERSATION, session=other)
        ended = await asyncio.to_thread(ran, capsys, "sessions", "archive", "other")
        assert ended == (0, "1 session archived.\n", "")
        assert not daemon.path(other).exists()
        await (await daemon.client("other")).ask("And now?")  # it goes on where it was
        assert [event["content"] for event in daemon.events(other) if event["role"] == "user"] == [
            "What time is it?\nI mean *now*.", "And now?"
        ]  # fmt: skip


# -- what is wrong with an archive -----------------------------------------------------------------


def test_verify_names_a_damaged_archive(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, *CONVERSATION)
    file = archived(data_dir)
    file.write_bytes(file.read_bytes()[:-9])
    code, out, _ = ran(capsys, "sessions", "verify")
    assert (code, out.splitlines()[-1]) == (1, "1 session, 1 damaged")
    assert f"; {file.name} is damaged: its end is missing" in out
    (entry,) = ran(capsys, "sessions", "verify", "--json").out.splitlines()
    assert json.loads(entry)["archive"] == f"{file.name} is damaged: its end is missing"
    code, out, err = ran(capsys, "sessions", "show", "local")
    assert (code, "I mean" in out) == (os.EX_IOERR, True)
    assert err == f"lunar: {file.name} is damaged: its end is missing. What stands before that was read.\n"


def test_verify_names_an_archive_that_says_something_else(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, *CONVERSATION)
    archived(data_dir)
    wrote(data_dir, User(content="another"))
    assert ran(capsys, "sessions", "verify") == (
        1, f"{LOCAL}: 2 lines; its archive holds something else\n1 session, 1 damaged\n", ""
    )  # fmt: skip
    assert "another" in ran(capsys, "sessions", "show", "local").out
