"""What opening a damaged file keeps, cuts off and passes over."""

from __future__ import annotations

from pathlib import Path

import pytest

from session import transcript
from session.events import User, encode
from session.transcript import Transcript
from tests.session.disk import Disk
from tests.session.transcripts import (
    LINES,
    NAME,
    WHOLE,
    kept,
    opened,
    said,
    user,
)


@pytest.mark.parametrize("size", range(len(WHOLE) + 1))
def test_cut_at_every_byte(tmp_path: Path, quick_disk: Disk, size: int) -> None:
    (tmp_path / NAME).write_bytes(WHOLE[:size])
    lines = WHOLE[:size].split(b"\n")
    whole, tail = [line + b"\n" for line in lines[:-1]], lines[-1]
    complete = tail + b"\n" in LINES
    beside = Transcript(tmp_path / NAME, writable=False)
    assert [record.line + b"\n" for record in beside.after(None, 9)] == whole
    assert beside.verify() == transcript.Report(len(whole), (), len(tail))
    assert (tmp_path / NAME).read_bytes() == WHOLE[:size]

    file = opened(tmp_path)
    expected = [*whole, tail + b"\n"] if complete else whole
    assert (tmp_path / NAME).read_bytes() == b"".join(expected)
    assert kept(tmp_path) == ([tail] if tail and not complete else [])
    assert file.torn == (0 if complete else len(tail))
    assert file.verify() == transcript.Report(len(expected), (), 0)

    file.append([user("next")])
    begin = b"".join(expected) or LINES[0]
    assert (tmp_path / NAME).read_bytes() == begin + encode(user("next"))
    assert opened(tmp_path).torn == 0


def test_a_torn_tail_of_zeros_is_cut_off(folder: Path) -> None:
    (folder / NAME).write_bytes(WHOLE + bytes(5_000))  # what a power failure leaves on some file systems
    assert opened(folder).torn == 5_000
    assert (folder / NAME).read_bytes() == WHOLE
    assert kept(folder) == [bytes(5_000)]


def test_a_torn_tail_longer_than_a_block(folder: Path) -> None:
    tail = encode(user("x" * 200_000))[:-5]
    (folder / NAME).write_bytes(WHOLE + tail)
    assert opened(folder).torn == len(tail)
    assert kept(folder) == [tail]


def test_every_flipped_byte_costs_at_most_its_line(folder: Path) -> None:
    """A changed newline joins two lines, and costs both; what becomes a newline splits one."""
    first = opened(folder)
    first.append([user("eins"), user("zwei"), user("drei")])
    first.close()
    whole = (folder / NAME).read_bytes()
    lines = whole.splitlines(keepends=True)
    for place in range(len(whole)):
        number = whole[:place].count(b"\n")
        hit = {number, number + 1} if whole[place : place + 1] == b"\n" else {number}
        for change in (1, 8, 128, whole[place] ^ ord("\n")):
            (folder / NAME).unlink()  # a file cut to nothing and written again is flushed when it is closed
            (folder / NAME).write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            file = opened(folder)
            read = [record.line + b"\n" for record in file.after(None, 99)]
            untouched = [line for number, line in enumerate(lines) if number not in hit]
            assert [line for line in read if line in untouched] == untouched
            assert {record.line + b"\n" for record in file.backwards()} == set(read)
            if change:
                file.append([user("goes on")])
                assert file.before(None, 1)[0].event == user("goes on")
            file.close()


def test_verify_gives_the_numbers_of_bad_lines(folder: Path) -> None:
    lines = [LINES[0], b"nonsense\n", LINES[1], LINES[3].replace(b"zwei", b"drei"), b"\n", LINES[2], b"[1]\n"]
    (folder / NAME).write_bytes(b"".join(lines) + b'{"role":"us')
    file = Transcript(folder / NAME, writable=False)
    assert file.verify() == transcript.Report(7, (2, 4, 7), 11)
    places: list[int] = []
    good = [record.line + b"\n" for record in file.backwards(on_bad=places.append)]
    assert good == [LINES[2], LINES[1], LINES[0]]
    begins = [sum(map(len, lines[:number])) for number in range(8)]
    assert places == [begins[6], begins[3], begins[1]]


def test_readers_beside_a_daemon_change_nothing_and_see_what_is_added(folder: Path) -> None:
    (folder / NAME).write_bytes(WHOLE + b'{"role":"user"')
    before = (folder / NAME).read_bytes(), (folder / NAME).stat().st_mtime_ns, sorted(folder.iterdir())
    reader = Transcript(folder / NAME, writable=False)
    assert len(reader.after(None, 9)) == 4
    reader.verify()
    assert len(reader.before(reader.cursor(), 9)) == 4
    assert before == (
        (folder / NAME).read_bytes(),
        (folder / NAME).stat().st_mtime_ns,
        sorted(folder.iterdir()),
    )
    with (folder / NAME).open("ab") as daemon:
        daemon.write(b',"content":"more"}\n{"role"')
    last = reader.cursor()
    reader = Transcript(folder / NAME, writable=False)
    assert said(reader.after(last, 9)) == [User(content="more")]
