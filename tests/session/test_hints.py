"""`open.log` may name too many transcripts, never too few."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session import hints
from session.errors import StorageError
from session.hints import OpenLog
from tests.session.disk import Disk

A, B, C = (f"agent-main-cli-{letter}.jsonl" for letter in "abc")
HEADER = b"lunar open 2\n"


def hints_of(*said: str) -> bytes:
    """The log's lines, each with its checksum."""
    return b"".join(b"%b %08x\n" % (one.encode(), zlib.crc32(one.encode())) for one in said)


@pytest.fixture
def folder(tmp_path: Path, quick_disk: Disk) -> Path:
    (tmp_path / "sessions").mkdir()
    return tmp_path


def loaded(folder: Path) -> OpenLog:
    log = OpenLog(folder)
    log.load()
    return log


def hinted(folder: Path) -> set[str]:
    """What a start after a crash right now would look at."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        log = loaded(Path(copy))
        log.close()
        return log.names


def test_the_form_of_the_log(folder: Path) -> None:
    log = loaded(folder)
    log.add(A)
    log.add(B, C, A)
    log.remove(A)
    assert (folder / "open.log").read_bytes() == HEADER + hints_of(f"+{A}", f"+{B}", f"+{C}", f"-{A}")
    assert (folder / "open.log").stat().st_mode & 0o777 == 0o600
    assert log.names == {B, C}


def test_a_hint_is_on_disk_when_add_returns_and_taken_back_without_waiting(folder: Path, disk: Disk) -> None:
    log = loaded(folder)
    syncs = disk.calls["fdatasync"]
    log.add(A)
    assert disk.calls["fdatasync"] == syncs + 1
    log.add(A)
    log.remove(A)
    log.remove(B)
    assert disk.calls["fdatasync"] == syncs + 1
    log.add(A, B, C)
    assert disk.calls["fdatasync"] == syncs + 2


def test_a_start_compacts(folder: Path) -> None:
    log = loaded(folder)
    for _ in range(50):
        log.add(A, B)
        log.remove(A)
    log.close()
    log = loaded(folder)
    assert not log.rebuilt
    assert log.names == {B}
    assert (folder / "open.log").read_bytes() == HEADER + hints_of(f"+{B}")
    assert not (folder / "open.log.new").exists()


def test_a_large_log_is_compacted_at_run_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "_LARGE", 500)
    log = loaded(folder)
    log.add(C)
    sizes = []
    for _ in range(100):
        log.add(A)
        log.remove(A)
        sizes.append((folder / "open.log").stat().st_size)
    assert max(sizes) < 700
    assert hinted(folder) == {C}


def test_many_open_sessions_do_not_make_every_hint_a_rewrite(
    folder: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    monkeypatch.setattr(hints, "_LARGE", 500)
    log = loaded(folder)
    for number in range(300):
        log.add(f"agent-main-cli-{number}.jsonl")
    assert disk.calls["rename"] <= 12  # each time twice as large as the last


# -- damage --------------------------------------------------------------------------------------


def test_the_first_start_finds_nothing(folder: Path) -> None:
    log = loaded(folder)
    assert log.rebuilt
    assert log.names == set()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"lunar open 2",
        b"something else\n",
        f"lunar open 1\n+{A}\n".encode(),
        b"\0" * 100,
        HEADER + hints_of(A),
        HEADER + f"+{A}\n".encode(),
        HEADER + hints_of(f"+{A}x"),
        HEADER + hints_of("+../../etc/passwd.jsonl"),
        HEADER + b"+\xff.jsonl\n",
        HEADER + b"\n",
        HEADER + hints_of(f"+{A}") + b"\0" * 50 + b"\n",
        HEADER + hints_of(f"+{A}", f"+{B}")[:-1],
    ],
)
def test_a_missing_or_damaged_log_names_every_transcript(folder: Path, content: bytes | None) -> None:
    for name in (A, B):
        (folder / "sessions" / name).touch()
    if content is not None:
        (folder / "open.log").write_bytes(content)
    log = loaded(folder)
    assert log.rebuilt
    assert log.names == {A, B}
    log.close()
    again = loaded(folder)
    assert not again.rebuilt
    assert again.names == {A, B}


def test_no_flipped_byte_and_no_cut_makes_it_forget(folder: Path) -> None:
    for name in (A, B, C):
        (folder / "sessions" / name).touch()
    path, whole = folder / "open.log", HEADER + hints_of(f"+{C}", f"+{A}", f"-{C}", f"+{B}")
    for place, byte in enumerate(whole):
        for other in {byte ^ 1, byte ^ 2, byte ^ 4, byte ^ 8, byte ^ 128, *b"+-\n abcC"} - {byte}:
            path.unlink(missing_ok=True)
            path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
            log = loaded(folder)
            log.close()
            assert {A, B} <= log.names, (place, other)
    for size in range(len(whole) + 1):
        path.unlink()
        path.write_bytes(whole[:size])
        log = loaded(folder)
        log.close()
        stored = {name for name in (A, B) if f"+{name} ".encode() in whole[: max(0, size - 9)]}
        assert stored <= log.names, size


def test_other_files_do_not_disturb_the_rebuilding(folder: Path) -> None:
    for name in (A, f"{A}.torn-1", "notes.txt", "Übung.jsonl", "a\nb.jsonl", ".hidden", "UPPER.jsonl"):
        (folder / "sessions" / name).touch()
    (Path(os.fsdecode(os.fsencode(folder / "sessions") + b"/\xff.jsonl"))).touch()
    assert loaded(folder).names == {A}
    assert not loaded(folder).rebuilt


def test_a_log_deleted_at_run_time_is_written_anew(folder: Path) -> None:
    log = loaded(folder)
    log.add(A)
    (folder / "open.log").unlink()
    log.add(B)
    assert hinted(folder) == {A, B}


def test_an_interrupted_compaction_leaves_the_old_log(folder: Path, disk: Disk) -> None:
    log = loaded(folder)
    log.add(A)
    before = (folder / "open.log").read_bytes()
    for call in ("write", "rename"):
        disk.fail(call, errno.ENOSPC)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            loaded(folder)
        assert (folder / "open.log").read_bytes() == before
    disk.fail("fsync", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        loaded(folder)
    assert (folder / "open.log").read_bytes() == before
    disk.heal()
    (folder / "open.log.new").write_bytes(b"half")
    assert hinted(folder) == {A}


# -- a failing disk ------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "fdatasync", "fstat"])
def test_a_hint_that_fails_is_no_hint_and_the_next_one_works(folder: Path, disk: Disk, call: str) -> None:
    log = loaded(folder)
    log.add(A)
    descriptors = len(os.listdir("/proc/self/fd"))
    disk.fail(call, errno.EIO)
    with pytest.raises(StorageError, match=r"open\.log") as caught:
        log.add(B)
    assert caught.value.errno == errno.EIO
    assert log.names == {A}
    rewritten = disk.calls["rename"]
    log.add(C)
    assert disk.calls["rename"] == rewritten + 1  # anew: a failed fdatasync is never tried again
    log.remove(C)
    log.remove(A)
    log.add(A)
    log.add(B)
    assert log.names == {A, B}
    assert hinted(folder) == {A, B}
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("size", range(len(A) + 2))
def test_a_short_write_harms_no_hint(folder: Path, disk: Disk, size: int) -> None:
    log = loaded(folder)
    log.add(B)
    disk.shorten(size)
    with pytest.raises(StorageError):
        log.add(A)
    assert hinted(folder) == {B}
    log.add(C)
    assert hinted(folder) == {B, C}
    disk.shorten(size)
    log.remove(C)
    assert log.names == {B}
    log.add(A)
    assert {A, B} <= hinted(folder)


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
def test_a_failing_rewrite_is_tried_again_by_the_next_hint(folder: Path, disk: Disk, call: str) -> None:
    log = loaded(folder)
    log.add(A)
    (folder / "open.log").unlink()
    disk.fail(call, errno.ENOSPC)
    with pytest.raises(StorageError):
        log.add(B)
    disk.heal(call)
    disk.instead["fsync"] = lambda fd: None
    log.add(B)
    assert hinted(folder) == {A, B}


# -- never too few -------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "remove", "crash", "restart", "write", "fdatasync", "rename"]),
        st.sampled_from([A, B, C]),
        st.integers(0, 10_000),
    ),
    max_size=30,
)


@given(steps)
def test_never_too_few(steps: list[tuple[str, str, int]]) -> None:
    """A crash may cut off everything behind the last synced hint, at any byte."""
    disk = Disk()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hints, "os", disk)
        patch.setattr(hints, "_LARGE", 200)
        folder, synced, model = Path(name), 0, set[str]()
        (folder / "sessions").mkdir()
        path = folder / "open.log"
        for each in (A, B, C):
            (folder / "sessions" / each).touch()
        log = loaded(folder)
        for each in (A, B, C):
            log.remove(each)
        for step, each, number in steps:
            disk.instead = {"fdatasync": lambda fd: None, "fsync": lambda fd: None}
            if step == "add":
                log.add(each)
                model.add(each)
                synced = path.stat().st_size
            elif step == "remove":
                log.remove(each)
                model.discard(each)
            elif step in ("crash", "restart"):
                log.close()
                if step == "crash" and (size := path.stat().st_size) > synced:
                    os.truncate(path, synced + number % (size - synced + 1))
                log = loaded(folder)
                synced = path.stat().st_size
            else:
                disk.fail(step, errno.EIO)
                was = log.names & {each}
                try:
                    log.add(each)
                except StorageError:
                    assert not was
                    synced = min(synced, path.stat().st_size)
                else:
                    model.add(each)
                    synced = path.stat().st_size
            assert model <= log.names
            disk.instead = {"fdatasync": lambda fd: None, "fsync": lambda fd: None}
        log.close()
        assert model <= hinted(folder)
