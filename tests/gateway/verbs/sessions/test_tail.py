"""`lunar sessions tail`: the end of a transcript, and what comes after it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.verbs.sessions.growing import GrowingFile
from session import archive, ids
from session.events import Record, User
from tests.conftest import Daemons
from tests.gateway.verbs.lunar import LOCAL, archived, path, plain_environment, ran, wrote
from tests.gateway.verbs.sessions.said import CONVERSATION

NAME = ids.file_name(LOCAL)


def said(records: list[Record] | Iterator[Record]) -> list[str]:
    return [record.event.content for record in records if isinstance(record.event, User)]


def users(*texts: str) -> list[User]:
    return [User(content=text) for text in texts]


@pytest.mark.parametrize("put_away", [False, True])
def test_the_last_events(data_dir: Path, capsys: pytest.CaptureFixture[str], put_away: bool) -> None:
    wrote(data_dir, *CONVERSATION, *users(*map(str, range(20))))
    if put_away:
        archived(data_dir)
    code, out, err = ran(capsys, "sessions", "tail", "local")
    assert (code, err) == (0, "")
    assert [line.split()[-1] for line in out.splitlines()] == list(map(str, range(10, 20)))
    out = ran(capsys, "sessions", "tail", "local", "-n", "2", "--json").out
    assert [json.loads(line)["content"] for line in out.splitlines()] == ["18", "19"]
    assert ran(capsys, "sessions", "tail", "local", "-n", "0").out == ""
    for more in ("999", "99999999999999999999"):
        assert len(ran(capsys, "sessions", "tail", "local", "--lines", more).out.splitlines()) == 27


def test_a_session_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, "sessions", "tail", "local")
    assert (code, err) == (1, "lunar: There is no session local. `lunar sessions list` shows all.\n")
    assert ran(capsys, "sessions", "tail", "-f", "").code == 1  # no session can have that name


def test_what_is_added_is_told_once(data_dir: Path) -> None:
    place = GrowingFile(data_dir, NAME)
    assert place.last(10) == []
    assert list(place.news()) == []  # it is not made yet
    wrote(data_dir, *users("a", "b"))
    assert said(place.news()) == ["a", "b"]
    assert list(place.news()) == []
    wrote(data_dir, *users(*map(str, range(600))))
    assert said(place.news()) == list(map(str, range(600)))
    with path(data_dir).open("ab") as file:
        file.write(b'{"role":"user","content":"un')  # just being written
    assert list(place.news()) == []
    with path(data_dir).open("ab") as file:
        file.write(b'finished"}\n')
    assert said(place.news()) == ["unfinished"]


def test_the_archive_and_back_is_no_news(data_dir: Path) -> None:
    wrote(data_dir, *users("a"))
    place = GrowingFile(data_dir, NAME)
    assert said(place.last(10)) == ["a"]
    archived(data_dir)
    assert list(place.news()) == []
    assert archive.unpack(data_dir, NAME)
    wrote(data_dir, *users("b"))
    assert said(place.news()) == ["b"]


def test_a_file_that_was_deleted_and_made_again_is_told_from_its_beginning(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, *users("a", "b"))
    place = GrowingFile(data_dir, NAME)
    assert said(place.last(1)) == ["b"]
    path(data_dir).unlink()
    assert list(place.news()) == []
    path(data_dir).write_bytes(b'{"role":"user","content":"other"}\n')
    assert said(place.news()) == ["other"]
    assert capsys.readouterr().err == "(deleted, and begun anew)\n"


@asynccontextmanager
async def following(data_dir: Path, cwd: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "sessions", "tail", "-f", *arguments,
        cwd=cwd, env=plain_environment(cwd) | {"LUNAR_DATA_DIR": str(data_dir)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        try:
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(20):
                assert await process.wait() == 130
        finally:
            with suppress(ProcessLookupError):
                process.kill()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode()


async def test_following_a_live_session_that_is_made_later(daemons: Daemons, tmp_path: Path) -> None:
    daemon = daemons()
    async with daemon, following(daemon.data_dir, tmp_path, "work") as process:
        client = await daemon.client("work")
        await client.ask("Hello there")
        heard = [await line(process) for _ in range(4)]
        assert "session: agent:main:cli:work" in heard[0]
        assert heard[1].endswith("  you        Hello there\n")
        assert "  assistant  " in heard[3]
        os.utime(daemon.path("agent:main:cli:work"))  # touched, and nothing was said
        await client.ask("Still there?")
        assert (await line(process)).endswith("  you        Still there?\n")
