"""`lunar backup` beside a gateway that works, and without one."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.verbs import backup
from gateway.verbs.backup import MANIFEST, Source
from session import archive, ids
from session.events import User
from tests.conftest import Daemons
from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import OpenAIServer
from tests.gateway.environment import clear
from tests.gateway.verbs.lunar import archived, lunar, ran, wrote

WORK = "agent:main:cli:work"


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("LUNAR_DATA_DIR", str(tmp_path / "d"))
    return tmp_path / "d"


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def packed(file: Path) -> dict[str, bytes]:
    """Every file of a tar.gz."""
    with tarfile.open(file) as tar:
        return {info.name: content.read() for info in tar if (content := tar.extractfile(info))}


def full(data_dir: Path) -> dict[str, bytes]:
    """A data directory with one of everything; returns what belongs into a backup."""
    wrote(data_dir, User(content="Hello"), session=WORK)
    archived(data_dir, WORK)
    plain = wrote(data_dir, User(content="Hello"))
    kept = {
        f"sessions/{plain.name}": plain.read_bytes(),
        f"archive/{ids.file_name(WORK)}.gz": archive.path_of(data_dir, ids.file_name(WORK)).read_bytes(),
        f"sessions/{plain.name}.torn-20260101": b'{"ro',
        "media/telegram/7_1.jpg": bytes(range(256)) * 1000,
        "media/telegram/7_2.pdf.wanted": b"{}",
        "telegram-pairing.jsonl": b'{"approve":"user:7"}\n',
        "empty.jsonl": b"",
    }
    for name, content in kept.items():
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_bytes(content)
    with plain.open("ab") as file:
        file.write(b'{"role":"user","con')  # just being written
    for name in ("lock", "open.log", "open.log.new", "probe", "index/words.db", "media/telegram/7_3.jpg.part",
                 "archive/x.jsonl.gz.new", "before-restore-20260101T000000Z/sessions/y.jsonl"):  # fmt: skip
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_bytes(b"not this")
    (data_dir / "link").symlink_to("/etc/hostname")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(data_dir / "lunar.sock"))
    return kept


@pytest.mark.parametrize("target", ["out.tar.gz", "out.tgz", "out"])
def test_everything_that_must_not_be_lost_and_nothing_else(
    target: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = full(data_dir)
    before = files(data_dir)
    code, out, err = ran(capsys, "backup", target)
    assert (code, err) == (0, "")
    assert out.startswith("2 sessions and 5 other files, 25")
    made = tmp_path / target
    content = files(made) if made.is_dir() else packed(made)
    manifest = json.loads(content.pop(MANIFEST))
    assert content == kept
    assert {name: size for name, size, _ in manifest["files"]} == {name: len(kept[name]) for name in kept}
    assert files(data_dir) == before
    for found in [made, *made.rglob("*")]:
        assert stat.S_IMODE(found.stat().st_mode) == (0o700 if found.is_dir() else 0o600), found
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("target", ["d/out", "link/out.tar.gz", "link/sessions/out"])
def test_a_backup_is_no_part_of_itself(
    target: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full(data_dir)
    (tmp_path / "link").symlink_to(data_dir)
    before = files(data_dir)
    code, out, err = ran(capsys, "backup", target)
    assert (code, out, err) == (
        os.EX_USAGE, "", f"lunar: {tmp_path}/{target} is inside the data directory: choose a place outside.\n"
    )  # fmt: skip
    assert files(data_dir) == before


def test_the_data_directory_may_be_named_by_a_link(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full(data_dir)
    (tmp_path / "link").symlink_to(data_dir)
    monkeypatch.setenv("LUNAR_DATA_DIR", str(tmp_path / "link"))
    assert ran(capsys, "backup", "d/out").code == os.EX_USAGE
    assert ran(capsys, "backup", "out").code == 0


def test_nothing_is_overwritten(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full(data_dir)
    for name in ("out.tar.gz", "out"):
        (tmp_path / name).write_text("mine")
        code, _, err = ran(capsys, "backup", name)
        assert (code, "is there already" in err) == (os.EX_CANTCREAT, True)
        assert (tmp_path / name).read_text() == "mine"
    (tmp_path / "nowhere.tar.gz").symlink_to("no such thing")
    assert "is there already" in ran(capsys, "backup", "nowhere.tar.gz").err
    (tmp_path / "new.part").mkdir()
    code, _, err = ran(capsys, "backup", "new")
    assert (code, "broken off: remove it" in err) == (os.EX_CANTCREAT, True)
    code, _, err = ran(capsys, "backup", "no/such/out.tar.gz")
    assert (code, err) == (
        os.EX_CANTCREAT,
        f"lunar: {tmp_path}/no/such/out.tar.gz.part: No such file or directory\n",
    )
    code, _, err = ran(capsys, "backup", str(data_dir / "out.tar.gz"))
    assert (code, "choose a place outside" in err) == (os.EX_USAGE, True)


def test_there_is_nothing(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, "backup", "out.tar.gz")
    assert (code, err) == (
        os.EX_IOERR,
        f"lunar: {data_dir} holds no sessions: there is nothing to back up.\n",
    )


def test_one_that_fails_leaves_nothing(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full(data_dir)

    def read(self: Source, number: int = 0) -> bytes:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Source, "read", read)
    for target in ("out.tar.gz", "out"):
        assert ran(capsys, "backup", target)[::2] == (os.EX_IOERR, "lunar: the disk is gone\n")
    assert {entry.name for entry in tmp_path.iterdir()} == {"d"}


def test_a_file_that_becomes_shorter_is_no_silent_loss(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    with (tmp_path / "f").open("rb") as file, pytest.raises(OSError, match="try again"):
        Source(file, 6, lambda _: None).read()


def test_sessions_that_move_meanwhile_are_met(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One goes to the archive, one comes back, one is deleted, each between two looks."""
    names = [ids.file_name(f"agent:main:cli:s{n}") for n in range(30)]
    for n in range(30):
        wrote(data_dir, User(content=f"number {n}"), session=f"agent:main:cli:s{n}")
    for name in names[:10]:
        archive.pack(data_dir, name)
    real = backup._names

    def moving(data_dir: Path) -> Iterator[str]:
        for n, name in enumerate(real(data_dir)):
            if n < 10:
                archive.unpack(data_dir, names[n])
                if (data_dir / "sessions" / names[10 + n]).exists():
                    archive.pack(data_dir, names[10 + n])
                (data_dir / "sessions" / names[20 + n]).unlink(missing_ok=True)
            yield name

    monkeypatch.setattr(backup, "_names", moving)
    assert ran(capsys, "backup", "out").code == 0
    found = {name.rpartition("/")[2].removesuffix(".gz") for name in files(tmp_path / "out")}
    assert set(names[:20]) <= found


# -- beside a gateway ------------------------------------------------------------------------------


async def test_what_was_acknowledged_before_is_there_and_answered_ones_are_not_asked_again(
    daemons: Daemons, openai: OpenAIServer, tmp_path: Path
) -> None:
    # Without summaries: the model is asked what people asked, and nothing else.
    plain = {"LUNAR_AGENTS__MAIN__SUMMARIES": "false"}
    daemon, sessions = daemons(server=openai, **plain), ("work", "home", "late")
    acknowledged: dict[str, list[str]] = {session: [] for session in sessions}
    going = True

    async def talk(session: str) -> None:
        client, number = await daemon.client(session), 0
        while going:
            number += 1
            await client.ask(f"{session} {number}")
            acknowledged[session].append(f"{session} {number}")

    async with daemon:
        talking = [asyncio.create_task(talk(session)) for session in sessions]
        for number in range(3):
            async with asyncio.timeout(20):
                while any(len(said) < 5 * (number + 1) for said in acknowledged.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            before = {session: list(said) for session, said in acknowledged.items()}
            ended = await lunar(
                "backup",
                str(tmp_path / f"{number}.tar.gz"),
                cwd=tmp_path,
                LUNAR_DATA_DIR=str(daemon.data_dir),
            )
            assert (ended.code, ended.err) == (0, "")
        going = False
        await asyncio.gather(*talking)

    other = daemons(server=openai, **plain)
    ended = await lunar(
        "restore", str(tmp_path / "2.tar.gz"), cwd=tmp_path, LUNAR_DATA_DIR=str(other.data_dir)
    )
    assert (ended.code, ended.err) == (0, "")
    assert "0 damaged" in ended.out
    restored = {session: said(other, session) for session in sessions}
    for session in sessions:
        assert restored[session][: len(before[session])] == before[session]
    unanswered = {text for session in sessions for text in restored[session]} - answered(other, sessions)
    openai.requests.clear()
    async with other:
        for session in sessions:
            client = await other.client(session)
            assert (await client.ask("And now?"))["content"] == "echo: And now?"
    asked = [request.body["messages"][-1]["content"] for request in openai.requests]
    assert sorted(asked) == sorted([*unanswered, *["And now?"] * 3])


def said(daemon: Daemon, session: str) -> list[str]:
    events = daemon.events(f"agent:main:cli:{session}")
    return [event["content"] for event in events if event["role"] == "user"]


def answered(daemon: Daemon, sessions: tuple[str, ...]) -> set[str]:
    return {
        event["content"].removeprefix("echo: ")
        for session in sessions
        for event in daemon.events(f"agent:main:cli:{session}")
        if event["role"] == "assistant"
    }
