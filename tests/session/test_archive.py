"""Compressing a transcript and bringing it back, with a crash at every step."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from session import archive, listing
from session.errors import DamagedArchive
from session.events import encode
from session.ids import SessionId
from session.transcript import BLOCK, Transcript
from tests.session.disk import Disk
from tests.session.transcripts import HEADER, NAME, WHOLE, everything, user

ID = SessionId("agent:main:cli:local")
MOMENT = 1_700_000_000_123_456_789


class Killed(BaseException):
    """The process is gone: nothing that it does from now on happens."""


class Doomed:
    """`os` of a process that is killed at its n-th call, before or behind what that call does."""

    def __init__(self, at: int, *, behind: bool) -> None:
        self.left = at
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if not callable(real) or isinstance(real, type):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "close":
                return real(*args, **kwargs)  # the kernel does that for the dead
            self.left -= 1
            if self.left < 0 or (self.left == 0 and not self._behind):
                raise Killed
            result = real(*args, **kwargs)
            if self.left == 0:
                raise Killed
            return result

        return call


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "sessions").mkdir(mode=0o700)
    return tmp_path


def plain(data_dir: Path) -> Path:
    return data_dir / "sessions" / NAME


def packed(data_dir: Path) -> Path:
    return archive.path_of(data_dir, NAME)


def wrote(data_dir: Path, content: bytes = WHOLE) -> Path:
    plain(data_dir).write_bytes(content)
    os.utime(plain(data_dir), ns=(MOMENT, MOMENT))
    return plain(data_dir)


def spoken(data_dir: Path) -> bytes:
    """What a reader sees, whichever file it is in."""
    return b"".join(archive.blocks(data_dir, NAME))


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [WHOLE, b"", encode(user("x" * (3 * BLOCK))) * 5])
def test_there_and_back(data_dir: Path, content: bytes) -> None:
    wrote(data_dir, content)
    assert archive.pack(data_dir, NAME)
    assert not plain(data_dir).exists()
    assert gzip.decompress(packed(data_dir).read_bytes()) == content  # for anybody's tools
    assert packed(data_dir).stat().st_mtime_ns == MOMENT
    assert (packed(data_dir).stat().st_mode & 0o777, packed(data_dir).parent.stat().st_mode & 0o777) == (
        0o600, 0o700
    )  # fmt: skip
    assert archive.unpack(data_dir, NAME) is True
    assert plain(data_dir).read_bytes() == content
    assert (plain(data_dir).stat().st_mtime_ns, plain(data_dir).stat().st_mode & 0o777) == (MOMENT, 0o600)
    assert [path for path in data_dir.rglob("*") if path.is_file()] == [plain(data_dir)]


def test_there_is_nothing_to_bring_back(data_dir: Path) -> None:
    assert archive.unpack(data_dir, NAME) is None
    with pytest.raises(FileNotFoundError):
        archive.opened(data_dir, NAME)
    with pytest.raises(FileNotFoundError):
        spoken(data_dir)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("work", [archive.pack, archive.unpack])
def test_a_crash_at_any_step_loses_nothing(
    data_dir: Path, work: Callable[[Path, str], object], behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = encode(user("drei"))
    for step in range(1, 100):
        for path in (plain(data_dir), packed(data_dir)):
            path.unlink(missing_ok=True)
        wrote(data_dir)
        if work is archive.unpack:
            archive.pack(data_dir, NAME)
        doomed = Doomed(step, behind=behind)
        with monkeypatch.context() as patch:
            for module in ("archive", "transcript"):
                patch.setattr(f"session.{module}.os", doomed)
            try:
                work(data_dir, NAME)
            except Killed:
                pass
            else:
                assert step > 8  # it has so many steps that were tried
                return
        assert spoken(data_dir) == WHOLE
        assert [entry.session for entry in listing.entries(data_dir)] == [ID]
        # The next process: somebody speaks again, then it is put away again.
        if not plain(data_dir).exists():
            assert archive.unpack(data_dir, NAME)
        with plain(data_dir).open("ab") as file:
            file.write(more)
        assert spoken(data_dir) == WHOLE + more
        assert archive.pack(data_dir, NAME)
        assert spoken(data_dir) == WHOLE + more
        assert gzip.decompress(packed(data_dir).read_bytes()) == WHOLE + more
        assert len([path for path in data_dir.rglob("*.jsonl*") if path.suffix != ".new"]) == 1
    raise AssertionError("it never ended")


def test_a_disk_that_refuses_leaves_what_was_there(data_dir: Path, disk: Disk) -> None:
    wrote(data_dir)
    for name, error in (("write", errno.ENOSPC), ("fsync", errno.EIO), ("rename", errno.EIO)):
        disk.fail(name, error)
        with pytest.raises(OSError, match=os.strerror(error)):
            archive.pack(data_dir, NAME)
        disk.heal()
        assert plain(data_dir).read_bytes() == WHOLE
    assert archive.pack(data_dir, NAME)
    for name, error in (("write", errno.ENOSPC), ("fsync", errno.EIO), ("rename", errno.EIO)):
        disk.fail(name, error)
        with pytest.raises(OSError, match=os.strerror(error)):
            archive.unpack(data_dir, NAME)
        disk.heal()
        assert not plain(data_dir).exists()
        assert spoken(data_dir) == WHOLE
    disk.shorten(10)
    with pytest.raises(OSError, match="short write"):
        archive.unpack(data_dir, NAME)
    assert archive.unpack(data_dir, NAME)
    assert plain(data_dir).read_bytes() == WHOLE


# -- both are there --------------------------------------------------------------------------------


def test_the_plain_one_wins_where_it_goes_on_from_the_archive(data_dir: Path) -> None:
    wrote(data_dir)
    archive.pack(data_dir, NAME)
    wrote(data_dir, WHOLE + encode(user("drei")))
    assert spoken(data_dir) == WHOLE + encode(user("drei"))
    assert archive.doubled(data_dir) == [NAME]
    assert not archive.contradicts(data_dir, NAME)
    assert archive.drop_needless(data_dir, NAME)
    assert archive.doubled(data_dir) == []
    assert spoken(data_dir) == WHOLE + encode(user("drei"))


@pytest.mark.parametrize("other", [WHOLE[:-1], b"", encode(HEADER) + encode(user("anders")) * 9])
def test_both_are_kept_where_they_differ(data_dir: Path, other: bytes) -> None:
    wrote(data_dir)
    archive.pack(data_dir, NAME)
    wrote(data_dir, other)
    before = packed(data_dir).read_bytes()
    assert archive.contradicts(data_dir, NAME)
    assert not archive.drop_needless(data_dir, NAME)
    assert not archive.pack(data_dir, NAME)
    assert (plain(data_dir).read_bytes(), packed(data_dir).read_bytes()) == (other, before)


def test_what_a_killed_process_was_writing_goes(data_dir: Path) -> None:
    wrote(data_dir)
    archive.pack(data_dir, NAME)
    packed(data_dir).with_name("other.jsonl.gz.new").touch()
    assert archive.doubled(data_dir) == ["other.jsonl"]
    assert archive.drop_needless(data_dir, "other.jsonl")
    assert archive.doubled(data_dir) == []
    assert spoken(data_dir) == WHOLE


# -- damage ----------------------------------------------------------------------------------------


def test_no_flipped_byte_and_no_cut_goes_unnoticed(data_dir: Path) -> None:
    content = b"".join(encode(user(f"number {n}")) for n in range(40))
    wrote(data_dir, content)
    archive.pack(data_dir, NAME)
    sound = packed(data_dir).read_bytes()
    damaged = [sound[:n] for n in range(len(sound))]
    damaged += [sound[:n] + bytes([sound[n] ^ 0x20]) + sound[n + 1 :] for n in range(10, len(sound))]
    for raw in [*damaged, sound + b"x"]:
        plain(data_dir).unlink(missing_ok=True)
        packed(data_dir).write_bytes(raw)
        assert archive.unpack(data_dir, NAME) is False
        assert packed(data_dir).read_bytes() == raw  # for whoever can do more with it
        assert plain(data_dir).exists()
    salvaged = Transcript(plain(data_dir), writable=False)
    assert everything(salvaged)[-1] == user("number 39")  # of the last one, where all but the end was sound
    salvaged.close()


def test_what_stands_before_the_damage_is_read(data_dir: Path) -> None:
    content = encode(HEADER) + b"".join(encode(user(os.urandom(40).hex())) for _ in range(2000))
    wrote(data_dir, content)
    archive.pack(data_dir, NAME)
    packed(data_dir).write_bytes(packed(data_dir).read_bytes()[:-30_000])
    transcript, damage = archive.opened(data_dir, NAME)
    try:
        assert isinstance(damage, DamagedArchive)
        assert "its end is missing" in str(damage)
        assert 1000 < len(everything(transcript)) < 2001
        assert transcript.verify().bad == ()
    finally:
        transcript.close()
    assert content.startswith(spoken(data_dir))


# -- reading ---------------------------------------------------------------------------------------


def test_an_archived_transcript_reads_as_if_it_were_none(data_dir: Path) -> None:
    wrote(data_dir)
    before = Transcript(plain(data_dir), writable=False)
    archive.pack(data_dir, NAME)
    after, damage = archive.opened(data_dir, NAME)
    assert damage is None
    assert after.after(None, 99) == before.after(None, 99)  # the same cursors, too
    assert list(after.backwards()) == list(before.backwards())
    assert after.verify() == before.verify()
    before.close()
    after.close()


def test_blocks_end_with_a_line_whatever_its_length(data_dir: Path) -> None:
    lines = [encode(user("x" * length)) for length in (1, BLOCK - 70, 3, 4 * BLOCK, 7)]
    wrote(data_dir, b"".join(lines) + b'{"role":"us')
    for archived in (False, True):
        assert plain(data_dir).exists() != archived
        blocks = list(archive.blocks(data_dir, NAME))
        assert all(block.endswith(b"\n") for block in blocks)
        assert b"".join(blocks) == b"".join(lines)
        if not archived:
            archive.pack(data_dir, NAME)
