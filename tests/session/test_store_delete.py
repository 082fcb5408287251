"""Deleting a session while others write to it and read it."""

from __future__ import annotations

import asyncio

import pytest

from session import ids
from session.errors import BadCursor
from session.store import Store
from tests.session.disk import Disk
from tests.session.stores import (
    HERE,
    THERE,
    Gate,
    everything,
    path_of,
    said,
    user,
)


async def test_a_deleted_session_is_gone(opened: Store) -> None:
    old = (await opened.append(HERE, [user("m1")]))[0].cursor
    path_of(opened).with_name(ids.file_name(HERE) + ".torn-20260101T000000.000000Z").touch()
    await opened.append(THERE, [user("m1")])
    assert await opened.delete(HERE)
    assert not await opened.delete(HERE)
    assert await opened.end(HERE) is None
    assert [entry.session for entry in await opened.listing()] == [THERE]
    assert opened.maybe_open() == [THERE]
    assert len(list((opened.data_dir / "sessions").iterdir())) == 1
    await opened.append(HERE, [user("m1")])
    with pytest.raises(BadCursor):
        await opened.after(HERE, old, 9)


async def test_what_was_called_before_a_delete_is_gone_and_what_came_after_it_stays(
    opened: Store, disk: Disk
) -> None:
    await opened.append(HERE, [user("m0")])
    gate = Gate(disk, "fdatasync")
    before = opened.append(HERE, [user("m1")])
    await gate.entered()
    deleting = [asyncio.create_task(opened.delete(HERE)) for _ in range(2)]
    gate.open()
    await before
    unlinking = Gate(disk, "open")  # the directory, after the file is gone
    await unlinking.entered()
    after = opened.append(HERE, [user("m2")])
    reading = asyncio.create_task(opened.after(HERE, None, 9))
    await asyncio.sleep(0)
    del disk.instead["open"]
    unlinking.open()
    await asyncio.gather(*deleting, reading, after, return_exceptions=True)
    assert sorted(task.result() for task in deleting) in ([False, True], [True, True])
    if deleting[0].result() != deleting[1].result():
        await after
        assert await everything(opened) == [user("m2")]
        assert HERE in opened.maybe_open()


async def test_appends_during_deletes_are_stored_or_deleted_but_never_refused(opened: Store) -> None:
    appended = 0

    async def talk() -> None:
        nonlocal appended
        for _ in range(60):
            await opened.append(HERE, [user(f"m{appended}")])
            appended += 1

    talking = asyncio.create_task(talk())
    while not talking.done():
        await opened.delete(HERE)
        await opened.end(HERE)
    await talking
    await opened.delete(HERE)
    await opened.append(HERE, [user("last")])
    assert await everything(opened) == [user("last")]
    assert opened.maybe_open() == [HERE]


async def test_a_reader_of_a_deleted_file_reads_it_to_its_end(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [user("m1")])
    gate = Gate(disk, "pread")
    reading = asyncio.create_task(opened.before(HERE, None, 9))
    await gate.entered()
    assert await opened.delete(HERE)
    gate.open()
    assert said(await reading) == [user("m1")]
    assert await opened.after(HERE, None, 9) == []
