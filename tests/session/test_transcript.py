"""One session's file: what is appended is read back, from either end and whatever happened to the file."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session import transcript
from session.errors import BadCursor
from session.events import Event, Record, System, encode
from session.transcript import Transcript
from tests.session.disk import Disk
from tests.session.transcripts import (
    HEADER,
    NAME,
    everything,
    opened,
    said,
    user,
)


def test_a_new_file_begins_with_its_header(folder: Path) -> None:
    file = opened(folder)
    [record] = file.append([user("hi")])
    assert (folder / NAME).read_bytes() == encode(HEADER) + encode(user("hi"))
    assert record == Record(file.cursor(), user("hi"), encode(user("hi"))[:-1])
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


def test_a_header_without_time_is_stamped(folder: Path) -> None:
    file = Transcript(folder / NAME, writable=True, header=System(name="session", format=1))
    file.append([user("hi")])
    [header] = file.after(None, 1)
    assert re.fullmatch(r"\d{4}-.*Z", header.event.ts)


def test_an_empty_file_that_was_first_only_read_gets_its_header_too(folder: Path) -> None:
    (folder / NAME).touch()
    file = Transcript(folder / NAME, writable=True, header=HEADER, create=False)
    cursor = file.cursor()
    assert file.after(cursor, 5) == []
    file.append([user("hi")])
    assert everything(file) == [HEADER, user("hi")]
    assert opened(folder).cursor() == file.cursor()  # the cursors of both are the same file's


@pytest.mark.parametrize("header", [None, HEADER])
def test_a_missing_file_is_made_only_on_request(folder: Path, header: Event | None) -> None:
    with pytest.raises(FileNotFoundError):
        Transcript(folder / NAME, writable=True, header=header, create=False)
    with pytest.raises(FileNotFoundError):
        Transcript(folder / NAME, writable=False)
    assert list(folder.iterdir()) == []


def test_a_file_of_another_program_is_accepted_and_continued(folder: Path) -> None:
    foreign = b'{"role":"user","content":"hello"}\n\n{"content":"hey", "role":"assistant"}\r\n'
    (folder / NAME).write_bytes(foreign)
    file = opened(folder)
    file.append([user("more")])
    assert (folder / NAME).read_bytes() == foreign + encode(user("more"))
    assert [getattr(event, "content", None) for event in everything(file)] == ["hello", "hey", "more"]
    assert file.verify() == transcript.Report(4, (), 0)


lengths = st.one_of(
    st.integers(0, 30), st.sampled_from([-1, 0, 1]).map(lambda more: 64 + more), st.integers(100, 400)
)


@given(st.lists(lengths, max_size=30), st.data())
def test_reading_is_slicing(sizes: list[int], data: st.DataObject) -> None:
    """With blocks of 64 bytes, lines are shorter and longer than a block and end on its border."""
    model = [user(f"{number}" + "x" * size) for number, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcript, "BLOCK", 64)
        patch.setattr(os, "fdatasync", lambda fd: None)
        file = Transcript(Path(folder) / NAME, writable=True, header=HEADER)
        stored: list[Record] = []
        rest = list(model)
        while rest:
            count = data.draw(st.integers(1, 5))
            stored += file.append(rest[:count])  # type: ignore[arg-type] # a list of some of the events
            del rest[:count]
        all_ = file.after(None, 1_000)
        assert all_[len(all_) - len(stored) :] == stored
        assert said(stored) == model
        assert list(file.backwards())[::-1] == all_
        marks: list[str | None] = [None, *(record.cursor for record in all_)]
        here = data.draw(st.integers(0, len(all_)))
        there = data.draw(st.integers(0, len(all_)))
        limit = data.draw(st.integers(0, 8))
        assert file.after(marks[here], limit) == all_[here : here + limit]
        if there:
            assert file.after(marks[here], 100, marks[there]) == all_[here:there]
        if here:
            assert file.before(marks[here], limit) == all_[max(0, here - limit) : here]
            assert list(file.backwards(marks[here])) == all_[:here][::-1]
        file.close()
        again = Transcript(Path(folder) / NAME, writable=False)
        assert again.after(None, 1_000) == all_
        assert again.verify() == transcript.Report(len(all_), (), 0)
        again.close()


def test_lines_much_longer_than_a_block(folder: Path) -> None:
    block = transcript.BLOCK
    model = [
        user(letter * size)
        for letter, size in zip(
            "abcdefgh",
            [3 * block, 1, block, block - 41, block - 42, block - 43, 5 * block + 7, 0],
            strict=True,
        )
    ]
    file = opened(folder)
    stored = file.append(list(model))
    assert said(stored) == model
    assert said(file.after(None, 100)) == [HEADER, *model]
    assert said(list(file.backwards())) == [HEADER, *model][::-1]
    assert said(file.before(stored[6].cursor, 2)) == model[5:7]
    assert opened(folder).end == file.end


def test_reading_the_end_reads_only_the_end(folder: Path, disk: Disk) -> None:
    file = opened(folder)
    for _ in range(20):
        file.append([user("x" * 1_000) for _ in range(100)])
    read: list[int] = []

    def pread(fd: int, size: int, place: int) -> bytes:
        read.append(size)
        return os.pread(fd, size, place)

    disk.instead["pread"] = pread
    assert len(file.before(None, 20)) == 20
    assert sum(read) <= transcript.BLOCK + 512
    read.clear()
    last = file.before(None, 2)[0].cursor
    read.clear()
    assert len(file.after(last, 100)) == 1
    assert sum(read) <= 2_000


# -- cursors -------------------------------------------------------------------------------------


def refused(file: Transcript, cursor: str) -> None:
    for read in (file.position, lambda c: file.after(c, 1), lambda c: file.before(c, 1)):
        with pytest.raises(BadCursor):
            read(cursor)
    with pytest.raises(BadCursor):
        file.after(None, 1, cursor)


def test_a_cursor_is_good_only_for_its_own_session(folder: Path) -> None:
    mine, other = opened(folder), opened(folder, "agent-main-cli-work.jsonl")
    for file in (mine, other):
        file.append([user("a"), user("b")])
    assert mine.end == other.end
    refused(other, mine.cursor())


def test_a_cursor_of_a_deleted_namesake_is_refused(folder: Path) -> None:
    first = opened(folder)
    old = first.append([user("a")])[0].cursor
    first.close()
    (folder / NAME).unlink()
    second = Transcript(folder / NAME, writable=True, header=System(name="session", ts="later"))
    second.append([user("a"), user("b")])
    refused(second, old)


def test_every_place_but_the_ends_of_lines_is_refused(folder: Path) -> None:
    file = opened(folder)
    good = {record.cursor for record in (*file.append([user("a"), user("b")]), *file.after(None, 1))}
    tag = file.cursor().partition(".")[2]
    for place in range(1, file.end + 50):
        cursor = f"{place:x}.{tag}"
        if cursor in good:
            assert file.position(cursor) == place
        else:
            refused(file, cursor)
    assert len(file.after(f"0.{tag}", 9)) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda place, tag: "",
        lambda place, tag: ".",
        lambda place, tag: tag,
        lambda place, tag: f".{tag}",
        lambda place, tag: f"{place:x}",
        lambda place, tag: f"{place:x}.",
        lambda place, tag: f"{place:X} .{tag}",
        lambda place, tag: f"0x{place:x}.{tag}",
        lambda place, tag: f"0{place:x}.{tag}",
        lambda place, tag: f"+{place:x}.{tag}",
        lambda place, tag: f"-{place:x}.{tag}",
        lambda place, tag: f"{place:x}.{tag.upper()}x",
        lambda place, tag: f"{place:x}.{tag}.{tag}",
        lambda place, tag: "f" * 5_000 + f".{tag}",
        lambda place, tag: "\ud800\0",
        lambda place, tag: "٣." + tag,
    ],
)
def test_garbage_is_no_cursor(folder: Path, make: object) -> None:
    file = opened(folder)
    file.append([user("a" * 100)])
    place, tag = file.end, file.cursor().partition(".")[2]
    assert callable(make)
    refused(file, make(place, tag))
