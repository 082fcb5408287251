"""One session's file on a disk that fails: what was told to have failed is not there, the rest is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session import transcript
from session.errors import BadEvent, StorageError
from session.events import Event, ToolCall, encode
from session.transcript import Transcript
from tests.session.disk import Disk
from tests.session.transcripts import (
    HEADER,
    NAME,
    WHOLE,
    everything,
    kept,
    opened,
    said,
    user,
)


def test_a_short_write_of_every_length_leaves_nothing_behind(file: Transcript, disk: Disk) -> None:
    batch: list[Event] = [user("eins"), user("zwei")]
    block = b"".join(map(encode, batch))
    for size in range(len(block)):
        before = file.path.read_bytes()
        file = opened(file.path.parent)
        disk.shorten(size)
        with pytest.raises(StorageError, match="short write"):
            file.append(batch)
        assert file.path.read_bytes() == before
        assert file.broken
        with pytest.raises(StorageError, match="opened anew"):
            file.append(batch)
        disk.heal("write")
        file = opened(file.path.parent)
        assert (file.torn, kept(file.path.parent)) == (0, [])
        assert said(file.append([user(f"{size}")])) == [user(f"{size}")]
        assert file.path.read_bytes() == before + encode(user(f"{size}"))
        file.close()


@pytest.mark.parametrize("call", ["write", "fdatasync", "fstat"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failing_call_leaves_nothing_behind(file: Transcript, disk: Disk, call: str, error: int) -> None:
    before, end = file.path.read_bytes(), file.end
    disk.fail(call, error)
    with pytest.raises(StorageError, match=os.strerror(error)) as caught:
        file.append([user("lost")])
    assert caught.value.errno == error
    assert (file.path.read_bytes(), file.end) == (before, end)
    assert everything(file) == [HEADER, user("before")]  # those who are in the file can go on reading
    again = opened(file.path.parent)
    again.append([user("after")])
    assert everything(again) == [HEADER, user("before"), user("after")]


def test_nothing_is_read_when_the_events_are_stored_already(file: Transcript, disk: Disk) -> None:
    """Their cursors need the file's first line: told to have failed then, they would be stored twice."""
    again, before = opened(file.path.parent), file.path.read_bytes()
    disk.fail("pread", errno.EIO)
    with pytest.raises(StorageError):
        again.append([user("lost")])
    assert file.path.read_bytes() == before
    new = opened(file.path.parent, "agent-main-cli-new.jsonl")
    reads = disk.calls["pread"]
    [record] = new.append([user("a")])
    assert disk.calls["pread"] == reads
    assert opened(file.path.parent, "agent-main-cli-new.jsonl").cursor() == record.cursor


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_failed_first_append_leaves_an_empty_file_that_begins_properly(
    folder: Path, disk: Disk, call: str
) -> None:
    disk.fail(call, errno.ENOSPC)
    file = opened(folder)
    with pytest.raises(StorageError):
        file.append([user("lost")])
    assert (folder / NAME).read_bytes() == b""
    again = opened(folder)
    again.append([user("kept")])
    assert everything(again) == [HEADER, user("kept")]


def test_a_full_disk_takes_nothing_back_that_was_written_before(file: Transcript, disk: Disk) -> None:
    file.append([user("not waited for")], sync=False)
    disk.fail("write", errno.ENOSPC)
    with pytest.raises(StorageError):
        file.append([user("lost")])
    assert everything(opened(file.path.parent)) == [HEADER, user("before"), user("not waited for")]


def test_after_a_failed_fdatasync_only_what_an_earlier_one_confirmed_is_kept(
    file: Transcript, disk: Disk
) -> None:
    file.append([user("not waited for")], sync=False)
    disk.fail("fdatasync", errno.EIO)
    syncs = disk.calls["fdatasync"]
    with pytest.raises(StorageError):
        file.append([user("lost")])
    assert disk.calls["fdatasync"] == syncs + 2  # never tried again; the second one is for the cut
    assert everything(file) == [HEADER, user("before")]
    assert file.path.read_bytes() == encode(HEADER) + encode(user("before"))


def test_an_unsynced_append_that_fails_keeps_what_was_there(file: Transcript, disk: Disk) -> None:
    file.append([user("one")], sync=False)
    disk.shorten(10)
    with pytest.raises(StorageError):
        file.append([user("two")], sync=False)
    assert everything(file) == [HEADER, user("before"), user("one")]


@pytest.mark.parametrize("later", [False, True])
def test_what_was_refused_is_off_the_disk_before_anything_takes_its_place(
    file: Transcript, disk: Disk, later: bool
) -> None:
    """Else a loss of power can leave the beginning of one line glued to the end of the other."""
    done: list[str] = []
    for name in ("write", "ftruncate", "fdatasync"):

        def call(*args: Any, name: str = name) -> Any:
            done.append(name)
            return getattr(os, name)(*args)

        disk.instead[name] = call
    disk.shorten(10)
    if later:
        disk.fail("ftruncate", errno.EIO)
    with pytest.raises(StorageError):
        file.append([user("refused")], sync=False)
    again = Transcript(file.path, writable=True, header=HEADER, cut=file.uncut)
    again.append([user("in its place")], sync=False)
    assert done == ["write", "ftruncate", "fdatasync", "write"]


def test_what_cannot_be_cut_back_now_is_cut_back_by_the_next_open(file: Transcript, disk: Disk) -> None:
    before = file.path.read_bytes()
    disk.fail("fdatasync", errno.EIO)
    disk.fail("ftruncate", errno.EIO, times=2)
    with pytest.raises(StorageError):
        file.append([user("refused")])
    assert file.path.read_bytes() != before
    assert everything(file) == [HEADER, user("before")]
    assert file.uncut == len(before)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        Transcript(file.path, writable=True, header=HEADER, cut=file.uncut)
    again = Transcript(file.path, writable=True, header=HEADER, cut=file.uncut)
    assert file.path.read_bytes() == before
    again.append([user("after")])
    assert everything(again) == [HEADER, user("before"), user("after")]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_file_that_cannot_be_opened_raises_and_holds_no_descriptor(
    folder: Path, disk: Disk, error: int
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for call in ("open", "fstat", "fsync"):
        disk.fail(call, error)
        with pytest.raises(OSError, match=os.strerror(error)):
            opened(folder)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_new_file_is_used_only_when_its_directory_is_on_disk(folder: Path, disk: Disk) -> None:
    disk.fail("fsync", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        opened(folder)
    syncs = disk.calls["fsync"]
    file = opened(folder)
    assert disk.calls["fsync"] == syncs + 1
    file.append([user("a")])
    file.close()
    opened(folder)
    assert disk.calls["fsync"] == syncs + 1


@pytest.mark.parametrize("call", ["open", "write", "fsync", "ftruncate", "fdatasync"])
def test_a_repair_that_fails_loses_nothing(folder: Path, disk: Disk, call: str) -> None:
    tail = b'{"role":"user","cont'
    (folder / NAME).write_bytes(WHOLE + tail)
    disk.fail(call, errno.ENOSPC, at=2 if call == "open" else 1)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        opened(folder)
    if call in ("open", "write", "fsync"):
        assert kept(folder) == []  # or each try would leave one more
    disk.heal()
    assert len(everything(opened(folder))) == 4
    assert (folder / NAME).read_bytes() == WHOLE
    assert set(kept(folder)) == {tail}


def test_a_torn_tail_is_cut_off_only_when_it_is_kept_whole(folder: Path, disk: Disk) -> None:
    (folder / NAME).write_bytes(WHOLE + b'{"role":"user","cont')
    disk.shorten(3)
    with pytest.raises(StorageError):
        opened(folder)
    assert (folder / NAME).read_bytes() == WHOLE + b'{"role":"user","cont'
    assert kept(folder) == []


def test_a_file_deleted_under_it_takes_no_more_events(file: Transcript) -> None:
    file.path.unlink()
    with pytest.raises(StorageError, match="deleted"):
        file.append([user("into nowhere")])
    again = opened(file.path.parent)
    again.append([user("anew")])
    assert everything(again) == [HEADER, user("anew")]


def test_what_another_program_added_is_neither_overwritten_nor_cut(file: Transcript) -> None:
    added = b'{"role":"user","content":"by hand"}\n'
    with file.path.open("ab") as hand:
        hand.write(added)
    before = file.path.read_bytes()
    with pytest.raises(StorageError, match="another program"):
        file.append([user("lost")])
    assert file.path.read_bytes() == before
    again = opened(file.path.parent)
    [record] = again.append([user("after")])
    assert file.path.read_bytes() == before + encode(user("after"))
    assert again.cursor() == record.cursor == opened(file.path.parent).cursor()


def test_a_file_that_shrinks_under_a_reader_ends_the_reading(file: Transcript) -> None:
    cursor = file.cursor()
    file.append([user("x" * 300_000) for _ in range(3)])
    os.truncate(file.path, file.end - 10)
    for read in (lambda: file.after(cursor, 99), lambda: list(file.backwards()), file.verify):
        with pytest.raises(StorageError, match="cut while it was read"):
            read()


def test_an_event_that_is_no_json_breaks_nothing(file: Transcript) -> None:
    before = file.path.read_bytes()
    with pytest.raises(BadEvent):
        file.append([user("fine"), ToolCall(name="x", args=object())])
    assert file.path.read_bytes() == before
    file.append([user("fine")])
    assert file.path.read_bytes() == before + encode(user("fine"))


@given(st.lists(st.tuples(st.sampled_from(["append", "short", "sync", "torn", "open"]), st.integers(0, 60))))
def test_stored_bytes_never_change(steps: list[tuple[str, int]]) -> None:
    """Whatever happens, what was stored stays the beginning of the file."""
    disk = Disk()
    disk.instead["fdatasync"] = disk.instead["fsync"] = lambda fd: None
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcript, "os", disk)
        folder = Path(name)
        file, stored = opened(folder), b""
        for number, (step, size) in enumerate(steps):
            event = user("x" * size + str(number))
            if step == "short":
                disk.shorten(size)
            elif step == "sync":
                disk.fail("fdatasync", errno.EIO)
            elif step == "torn":
                file.close()
                with file.path.open("ab") as crashed:
                    crashed.write(encode(event)[: size % 20])
                file = opened(folder)
            elif step == "open":
                file.close()
                file = opened(folder)
            try:
                [record] = file.append([event])
            except StorageError:
                disk.heal("write", "fdatasync")
                disk.instead["fdatasync"] = lambda fd: None
                file.close()
                file = opened(folder)
            else:
                stored = (stored or encode(HEADER)) + record.line + b"\n"
            assert file.path.read_bytes() == stored
        file.close()


def test_appends_wait_for_the_disk_only_where_asked(folder: Path, disk: Disk) -> None:
    file = opened(folder)
    before = disk.calls["fdatasync"]
    file.append([user("a")], sync=False)
    assert disk.calls["fdatasync"] == before
    file.append([user("b"), user("c")])
    assert disk.calls["fdatasync"] == before + 1
    assert disk.calls["write"] == 2


LIMITED = """
import errno, resource, sys
from pathlib import Path
from session.errors import StorageError
from session.events import System, User
from session.transcript import Transcript

path = Path(sys.argv[1])
file = Transcript(path, writable=True, header=System(name="session", content="x", format=1, ts="t"))
file.append([User(content="a" * 100, id="m1")])
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, resource.RLIM_INFINITY))
for expected in ("short write", "File too large"):
    try:
        Transcript(path, writable=True).append([User(content="b" * 100, id="m2")])
    except StorageError as error:
        assert expected in str(error) or expected == "File too large", error
    else:
        raise SystemExit("the append went through")
    assert path.read_bytes() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file = Transcript(path, writable=True)
assert file.torn == 0
file.append([User(content="c" * 100, id="m3")])
assert [r.event.content for r in file.after(None, 9)] == ["x", "a" * 100, "c" * 100]
"""


def test_a_real_short_write(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / NAME)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
