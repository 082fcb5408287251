"""All transcripts of one data directory, as the lanes use them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from session.errors import BadCursor, StoreLocked
from session.events import Record, System
from session.ids import SessionId
from session.listing import Entry, entries
from session.store import Store
from session.transcript import Transcript
from tests.session.disk import Disk
from tests.session.stores import (
    HERE,
    LONG,
    THERE,
    Gate,
    everything,
    note,
    path_of,
    said,
    session,
    user,
)


async def test_what_is_appended_is_read(opened: Store) -> None:
    assert await opened.end(HERE) is None
    assert await opened.after(HERE, None, 9) == []
    assert await opened.recent(HERE, lambda record: False) == []
    records = await opened.append(HERE, [user("m1"), note("n")])
    assert said(records) == [user("m1"), note("n")]
    await opened.append(THERE, [user("m2")])
    header, *rest = await opened.after(HERE, None, 9)
    assert rest == records
    assert isinstance(header.event, System)
    assert (header.event.name, header.event.content, header.event.format) == ("session", HERE, 1)
    assert await opened.end(HERE) == records[-1].cursor
    assert await opened.before(HERE, records[-1].cursor, 1) == records[1:]
    assert await opened.after(HERE, records[0].cursor, 9) == records[1:]
    assert await opened.after(HERE, None, 9, records[0].cursor) == [header, records[0]]
    assert await opened.recent(HERE, lambda record: record == records[0]) == records
    assert await everything(opened, THERE) == [user("m2")]
    with pytest.raises(BadCursor):
        await opened.after(THERE, records[0].cursor, 9)


async def test_an_empty_batch_is_stored_too(opened: Store) -> None:
    assert await opened.append(HERE, []) == []
    assert len(await opened.after(HERE, None, 9)) <= 1


async def test_directories_and_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        opened = Store(tmp_path / "data")
        opened.start()
        await opened.append(HERE, [user("m1")])
        await opened.close()
    finally:
        os.umask(old)
    for path in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


async def test_folders_that_a_start_makes_are_on_disk(tmp_path: Path, quick_disk: Disk) -> None:
    """Or a power failure takes away a whole data directory in which messages were acknowledged."""
    synced: list[str] = []
    quick_disk.instead["fsync"] = lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))
    opened = Store(tmp_path / "new" / "data")
    opened.start()
    await opened.close()
    assert {str(tmp_path), str(tmp_path / "new"), str(tmp_path / "new" / "data")} <= set(synced)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


async def test_appends_keep_the_order_of_the_calls_and_share_one_fdatasync(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [user("m0")])
    gate = Gate(disk, "fdatasync")
    first = opened.append(HERE, [note("first")])
    await gate.entered()
    before = disk.calls["fdatasync"]
    rest = [opened.append(HERE, [note(f"{number}"), note("b")], sync=number % 3 == 0) for number in range(50)]
    gate.open()
    stored = [await first, *await asyncio.gather(*rest)]
    assert disk.calls["fdatasync"] == before + 1
    flat = [record for records in stored for record in records]
    assert (await opened.after(HERE, None, 1_000))[2:] == flat
    assert said(stored[7]) == [note("6"), note("b")]


async def test_results_come_in_the_order_of_the_calls(opened: Store) -> None:
    done: list[int] = []
    futures = []
    for number in range(100):
        future = opened.append(HERE, [note(str(number))], sync=number % 7 == 0)
        future.add_done_callback(lambda _, number=number: done.append(number))  # type: ignore[misc] # mypy does not infer a default of a lambda
        futures.append(future)
        if number % 10 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*futures)
    assert done == list(range(100))
    assert await everything(opened) == [note(str(number)) for number in range(100)]


async def test_many_sessions_at_once(opened: Store) -> None:
    async def talk(of: SessionId) -> None:
        for turn in range(5):
            records = await opened.append(of, [user(f"{of} {turn}")])
            assert await opened.end(of) == records[-1].cursor

    sessions = [session(number) for number in range(60)]
    await asyncio.gather(*map(talk, sessions))
    for of in sessions:
        assert await everything(opened, of) == [user(f"{of} {turn}") for turn in range(5)]
    assert {entry.session for entry in await opened.listing()} == set(sessions)


async def test_few_conversations_are_read_at_a_time(
    tmp_path: Path, quick_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fault of the disk all are read again: at once that took as much memory as they have."""
    backwards, reading, most = Transcript.backwards, 0, 0
    lock = threading.Lock()

    def counted(self: Transcript, **options: Any) -> Iterator[Record]:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.01)
        yield from backwards(self, **options)
        with lock:
            reading -= 1

    monkeypatch.setattr(Transcript, "backwards", counted)
    opened = Store(tmp_path)
    opened.start()
    await asyncio.gather(*(opened.append(session(number), [user("m")]) for number in range(30)))
    found = await asyncio.gather(*(opened.recent(session(n), lambda record: False) for n in range(30)))
    await opened.close()
    assert [said(records)[0].id for records in found] == ["m"] * 30
    assert most == 4


async def test_a_caller_that_goes_away_changes_nothing(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [user("m0")])
    gate = Gate(disk, "fdatasync")
    gone = opened.append(HERE, [user("m1")])
    behind = opened.append(HERE, [user("m2")])
    await gate.entered()
    gone.cancel()
    behind_too = opened.append(HERE, [user("m3")])
    behind_too.cancel()
    gate.open()
    await behind
    await opened.append(HERE, [user("m4")])
    assert await everything(opened) == [user(f"m{number}") for number in range(5)]


async def test_the_listing_gives_true_ids_newest_first(opened: Store) -> None:
    odd = SessionId("agent:main:telegram:chat:-1:topic:Ä%~")
    for age, of in enumerate((HERE, odd, LONG, THERE)):
        await opened.append(of, [user("m")])
        os.utime(path_of(opened, of), (1_000 - age, 1_000 - age))
    folder = opened.data_dir / "sessions"
    for junk in (
        "junk.jsonl",
        "agent-main-cli-x.jsonl.torn-1",
        "agent-main-cli-Big.jsonl",
        "x%~y.jsonl",
        "a.txt",
    ):
        (folder / junk).write_text("{}\n")
    assert await opened.listing() == [
        Entry(of, path_of(opened, of).stat().st_size, 1_000.0 - age)
        for age, of in enumerate((HERE, odd, LONG, THERE))
    ]


def test_a_directory_without_sessions_has_none(tmp_path: Path) -> None:
    assert list(entries(tmp_path / "nowhere")) == []


async def test_a_shortened_name_counts_only_with_its_own_header(opened: Store) -> None:
    await opened.append(LONG, [user("m")])
    other = SessionId(LONG + "x")
    shutil.copy(path_of(opened, LONG), path_of(opened, other))
    assert [entry.session for entry in await opened.listing()] == [LONG]


async def test_a_second_daemon_is_told_who_the_first_is(opened: Store) -> None:
    second = Store(opened.data_dir)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        second.start()
    await second.close()
    await opened.append(HERE, [user("m1")])


async def test_a_start_that_fails_can_be_tried_again(tmp_path: Path, quick_disk: Disk) -> None:
    opened = Store(tmp_path / "data")
    for call in ("open", "ftruncate", "pwrite", "write", "fsync", "rename"):
        quick_disk.fail(call, errno.ENOSPC, at=2 if call == "open" else 1)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            opened.start()
    opened.start()
    await opened.append(HERE, [user("m1")])
    await opened.close()


async def test_closing_waits_for_what_is_being_written(tmp_path: Path, quick_disk: Disk) -> None:
    opened = Store(tmp_path)
    opened.start()
    stored = [opened.append(session(number), [user("m")]) for number in range(20)]
    await opened.close()
    assert all(future.done() for future in stored)
    with pytest.raises(RuntimeError):
        await opened.append(HERE, [user("late")])
    again = Store(tmp_path)
    again.start()
    assert len(again.maybe_open()) == 20
    await again.close()
