"""`lunar restore`: everything is checked before anything is changed, and nothing is ever deleted."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.verbs.backup import MANIFEST
from session import archive, ids
from session.events import User
from session.lock import DirectoryLock
from tests.gateway.environment import clear
from tests.gateway.verbs.lunar import LOCAL, archived, path, ran, wrote

WORK = "agent:main:cli:work"
OLD = 1_000_000_000


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("LUNAR_DATA_DIR", str(tmp_path / "d"))
    return tmp_path / "d"


@pytest.fixture(params=["b.tar.gz", "b"])
def backup(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A backup of two sessions and a picture, whose data directory is gone."""
    for number in range(3):
        os.utime(wrote(data_dir, User(content=f"Hello {number}", ts="t")), (OLD, OLD))
    wrote(data_dir, User(content="Hello"), session=WORK)
    archived(data_dir, WORK)
    (data_dir / "media" / "telegram").mkdir(parents=True)
    (data_dir / "media" / "telegram" / "7_1.jpg").write_bytes(bytes(range(256)) * 300)
    (data_dir / "telegram-moves.jsonl").write_text('{"from":1,"to":2}\n')
    assert ran(capsys, "backup", str(request.param)).code == 0
    shutil.move(data_dir, tmp_path / "original")
    return tmp_path / str(request.param)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def original(data_dir: Path) -> dict[str, bytes]:
    return files(data_dir.parent / "original")


def restored(data_dir: Path) -> dict[str, bytes]:
    """What is in the data directory now, without the lock's file."""
    return {name: content for name, content in files(data_dir).items() if name != "lock"}


def test_everything_is_as_it_was(backup: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, "restore", str(backup))
    assert (code, err) == (0, "")
    assert "is whole. It has 2 sessions, 1 archived and 0 damaged, 6 lines, and 2 other files.\n" in out
    assert restored(data_dir) == original(data_dir)
    assert path(data_dir).stat().st_mtime == OLD
    for found in [data_dir, *data_dir.rglob("*")]:
        assert stat.S_IMODE(found.stat().st_mode) == (0o700 if found.is_dir() else 0o600), found
    assert ran(capsys, "sessions", "verify").out == "2 sessions, 0 damaged\n"


def test_a_directory_without_anything_in_it_is_empty(
    backup: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a gateway leaves it that was started once: its `open.log` would hide what is open."""
    for folder in ("sessions", "media/telegram", "archive"):
        (data_dir / folder).mkdir(parents=True)
    (data_dir / "open.log").write_text("lunar open 1\n")
    (data_dir / ".restoring" / "sessions").mkdir(parents=True)  # of one that was broken off
    assert ran(capsys, "restore", str(backup)).code == 0
    assert restored(data_dir) == original(data_dir)


def test_what_is_there_is_moved_aside_and_only_when_told(
    backup: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, User(content="mine"), session="agent:main:cli:mine")
    (data_dir / "open.log").write_text("lunar open 1\n")
    mine = {name: content for name, content in files(data_dir).items() if name != "open.log"}
    code, _, err = ran(capsys, "restore", str(backup))
    assert (code, err.startswith(f"lunar: {data_dir} is not empty: ")) == (os.EX_CANTCREAT, True)
    assert mine.items() <= files(data_dir).items()
    code, out, err = ran(capsys, "restore", "--force", str(backup))
    assert (code, err) == (0, "")
    (aside,) = data_dir.glob("before-restore-*")
    assert f"What was there before is in {aside}.\n" in out
    assert files(aside) == mine
    assert {name: content for name, content in restored(data_dir).items() if aside.name not in name} == (
        original(data_dir)
    )
    assert ran(capsys, "sessions", "list").out.count("\n") == 2


def test_a_running_gateway_keeps_its_own(
    backup: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir.mkdir()
    lock = DirectoryLock(data_dir)
    lock.acquire()
    try:
        code, _, err = ran(capsys, "restore", "--force", str(backup))
    finally:
        lock.release()
    assert (code, "A gateway is running" in err) == (os.EX_TEMPFAIL, True)
    assert restored(data_dir) == {}


def test_damage_that_was_there_before_is_told(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = wrote(data_dir, User(content="Hello"))
    file.write_bytes(file.read_bytes().replace(b"Hello", b"Hallo"))
    assert ran(capsys, "backup", "b.tar.gz").code == 0
    shutil.move(data_dir, tmp_path / "original")
    code, out, _ = ran(capsys, "restore", "b.tar.gz")
    assert code == 1
    assert f"{LOCAL} is damaged, as it was when the backup was made.\n" in out
    assert restored(data_dir) == original(data_dir)


class Killed(BaseException):
    pass


def killed_at(call: int) -> Callable[[Path, Path], None]:
    """A rename of which the n-th never happens."""
    real, calls = os.rename, iter(range(1, 1000))

    def rename(source: Path, target: Path) -> None:
        if next(calls) == call:
            raise Killed
        real(source, target)

    return rename


def test_one_that_is_broken_off_is_gone_on_with(
    backup: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 9):
        shutil.rmtree(data_dir, ignore_errors=True)
        mine = wrote(data_dir, User(content="mine"), session="agent:main:cli:mine").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("gateway.verbs.restore.os.rename", killed_at(step))
            try:
                ran(capsys, "restore", "--force", str(backup))
            except Killed:
                pass
            else:
                assert step > 4
                return
        assert mine in files(data_dir).values()
        assert ran(capsys, "restore", "--force", str(backup)).code == 0
        now = files(data_dir)
        assert mine in now.values()
        assert original(data_dir).items() <= now.items()
    raise AssertionError("it never ended")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_restores_for_the_gateways_user(
    backup: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir.mkdir()
    os.chown(data_dir, 12345, 12345)
    assert ran(capsys, "restore", str(backup)).code == 0
    assert {(p.stat().st_uid, p.stat().st_gid) for p in [data_dir, *data_dir.rglob("*")]} == {(12345, 12345)}


# -- what is no backup -----------------------------------------------------------------------------


def refused(source: Path | str, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Restoring must change nothing; returns the message."""
    code, out, err = ran(capsys, "restore", str(source))
    assert (code, out, err.count("\n")) == (os.EX_IOERR, "", 1)
    assert restored(data_dir) == {}
    assert not (data_dir / ".restoring").exists()
    return err


def test_there_is_no_such_file(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("nowhere.tar.gz", data_dir, capsys).endswith("nowhere.tar.gz: No such file or directory\n")


@pytest.mark.parametrize("backup", ["b.tar.gz"], indirect=True)
def test_no_cut_and_no_flipped_byte_changes_what_is_restored(
    backup: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = backup.read_bytes()
    noticed = 0
    for place in range(0, len(sound), len(sound) // 60):
        for damaged in (sound[:place], sound[:place] + bytes([sound[place] ^ 0x10]) + sound[place + 1 :]):
            backup.write_bytes(damaged)
            if ran(capsys, "restore", str(backup)).code == 0:  # it hit nothing but filling
                assert restored(data_dir) == original(data_dir)
                shutil.rmtree(data_dir)
            else:
                refused(backup, data_dir, capsys)
                noticed += 1
    assert noticed > 80


@pytest.mark.parametrize("backup", ["b"], indirect=True)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: (b / MANIFEST).unlink(), "incomplete, or no backup"),
        (lambda b: (b / MANIFEST).write_text("{}"), "incomplete, or no backup"),
        (lambda b: (b / "telegram-moves.jsonl").unlink(), "1 file not as written (telegram-moves.jsonl)"),
        (lambda b: (b / "telegram-moves.jsonl").write_text("{}\n"), "(telegram-moves.jsonl)"),
        (lambda b: (b / "more.jsonl").write_text("{}\n"), "(more.jsonl)"),
        (lambda b: (b / "more").symlink_to("/etc/hostname"), "more, which is no file"),
        (lambda b: os.mkfifo(b / "more"), "more, which is no file"),
        (lambda b: (b / "lock").touch(), "lock, which no backup does"),
    ],
)
def test_a_folder_that_is_not_as_it_was_written(
    backup: Path,
    change: Callable[[Path], object],
    words: str,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(backup)
    assert words in refused(backup, data_dir, capsys)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        member("/etc/evil"),
        member("../evil"),
        member("sessions/../../evil"),
        member("sessions/./evil"),
        member("./evil"),
        member("."),
        member("sessions//evil"),
        member("lock"),
        member("open.log"),
        member("index/evil"),
        member(".restoring/evil"),
        member("before-restore-x/evil"),
        member("evil", tarfile.SYMTYPE, "/etc/passwd"),
        member("sessions", tarfile.SYMTYPE, "/etc"),
        member("evil", tarfile.LNKTYPE, "telegram-moves.jsonl"),
        member("evil", tarfile.FIFOTYPE),
        member("evil", tarfile.CHRTYPE),
        member("evil", tarfile.BLKTYPE),
        member("evil", tarfile.DIRTYPE),
        member("telegram-moves.jsonl"),
        member("telegram-moves.jsonl/evil"),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()}",
)
def test_no_member_reaches_anything_else(
    hostile: tarfile.TarInfo, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = b'{"from":1,"to":2}\n'
    files = [["telegram-moves.jsonl", len(honest), zlib.crc32(honest)], [hostile.name, 0, 0]]
    manifest = json.dumps({"version": "0", "created": "t", "files": files}).encode()
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        info = member("telegram-moves.jsonl")
        info.size = len(honest)
        tar.addfile(info, io.BytesIO(honest))
        tar.addfile(hostile)
        info = member(MANIFEST)
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
    before = {p.name for p in tmp_path.iterdir()} | {"d"}
    refused("evil.tar.gz", data_dir, capsys)
    assert {p.name for p in tmp_path.iterdir()} == before


def test_an_archive_and_its_transcript_both_come_back(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a backup finds them that is made while somebody speaks again in an archived session."""
    wrote(data_dir, User(content="Hello"))
    left = archived(data_dir).read_bytes()
    archive.unpack(data_dir, ids.file_name(LOCAL))
    wrote(data_dir, User(content="again"))
    archive.path_of(data_dir, ids.file_name(LOCAL)).write_bytes(left)
    assert ran(capsys, "backup", "b").code == 0
    shutil.move(data_dir, tmp_path / "original")
    code, out, _ = ran(capsys, "restore", "b")
    assert (code, "1 session, 0 archived and 0 damaged" in out) == (0, True)
    assert restored(data_dir) == original(data_dir)
