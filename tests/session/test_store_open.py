"""What a start must look at: every session with something open, and not the others."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from session.events import User
from session.ids import SessionId
from session.store import Store
from tests.session.disk import Disk
from tests.session.stores import (
    HERE,
    LONG,
    THERE,
    Gate,
    note,
    session,
    user,
)


def at_a_start_now(opened: Store, folder: Path) -> list[SessionId]:
    """What a start would look at if everything ended right here."""
    shutil.copytree(opened.data_dir, folder, ignore=shutil.ignore_patterns("lock"))
    again = Store(folder)
    again.start()
    found = again.maybe_open()
    asyncio.get_running_loop().create_task(again.close())
    return found


async def test_an_acknowledged_message_is_hinted_at(opened: Store, tmp_path: Path) -> None:
    await asyncio.gather(*(opened.append(session(number), [user("m")]) for number in range(30)))
    await opened.append(THERE, [note("no message"), User(content="by hand")])
    assert set(at_a_start_now(opened, tmp_path / "1")) == {session(number) for number in range(30)}
    for number in range(29):
        await opened.settle(session(number))
    assert at_a_start_now(opened, tmp_path / "2") == [session(29)]
    await opened.append(session(3), [user("again")])
    assert set(at_a_start_now(opened, tmp_path / "3")) == {session(3), session(29)}
    assert opened.maybe_open() == [session(29), session(3)]


async def test_many_hints_share_one_fdatasync(opened: Store, disk: Disk) -> None:
    gate = Gate(disk, "fdatasync")
    first = opened.append(HERE, [user("m")])
    await gate.entered()
    others = [opened.append(session(number), [user("m")]) for number in range(50)]
    await asyncio.sleep(0)  # until all of them wait for the log
    gate.open()
    await asyncio.gather(first, *others)
    assert disk.calls["fdatasync"] == 1 + 1 + 51  # the first hint, those of the others, each one's file


@pytest.mark.parametrize("again", ["while the log is busy", "before it is written"])
async def test_a_message_that_comes_while_its_session_is_settled_is_hinted_at(
    opened: Store, disk: Disk, tmp_path: Path, again: str
) -> None:
    """Nothing is open, says the lane; at that moment a message comes: its hint must be the last word."""
    await opened.append(HERE, [user("m1")])
    gate = Gate(disk, "fdatasync")
    busy = opened.append(THERE, [user("m")])
    await gate.entered()
    settling = asyncio.create_task(opened.settle(HERE))
    if again == "while the log is busy":
        await asyncio.sleep(0)
    message = opened.append(HERE, [user("m2")])
    gate.open()
    await asyncio.gather(settling, message, busy)
    assert HERE in at_a_start_now(opened, tmp_path / "copy")


async def test_settling_while_a_message_is_being_stored_changes_nothing(
    opened: Store, disk: Disk, tmp_path: Path
) -> None:
    await opened.append(HERE, [user("m1")])
    gate = Gate(disk, "fdatasync")
    message = opened.append(HERE, [user("m2")])
    await gate.entered()
    await opened.settle(HERE)
    gate.open()
    await message
    assert HERE in at_a_start_now(opened, tmp_path / "copy")


async def test_a_lost_log_means_looking_at_every_session(opened: Store) -> None:
    for of in (HERE, THERE, LONG):
        await opened.append(of, [note("n")])
    await opened.close()
    (opened.data_dir / "open.log").unlink()
    (opened.data_dir / "sessions" / "junk.jsonl").touch()
    again = Store(opened.data_dir)
    again.start()
    assert again.rebuilt
    assert set(again.maybe_open()) == {HERE, THERE, LONG}
    await again.close()


async def test_a_shortened_name_that_cannot_be_read_now_is_looked_at_next_time(
    opened: Store, disk: Disk
) -> None:
    await opened.append(LONG, [user("m")])
    disk.fail("open", errno.EMFILE)
    assert opened.maybe_open() == []
    assert opened.maybe_open() == [LONG]


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory for many files: in memory where the system has such a place."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


async def test_a_start_looks_only_at_what_may_be_open(in_memory: Path, quick_disk: Disk) -> None:
    opened = Store(in_memory)
    opened.start()
    waiting = [HERE, LONG, THERE]
    for of in waiting:
        await opened.append(of, [user("m")])
    await opened.close()
    old = in_memory / "old"
    old.write_bytes(b'{"role":"user","content":"old"}\n')
    for number in range(20_000):
        os.link(old, in_memory / "sessions" / f"agent-main-cli-old{number}.jsonl")
    quick_disk.calls.clear()
    again = Store(in_memory)
    again.start()
    assert set(again.maybe_open()) == set(waiting)
    opens = quick_disk.calls["open"]
    assert opens <= 4  # the lock, the compacted log, its directory, the header of the shortened name
    assert quick_disk.calls["scandir"] == 0
    assert all([len(await again.recent(of, lambda record: False)) == 2 for of in waiting])
    assert quick_disk.calls["open"] == opens + len(waiting)
    await again.close()
