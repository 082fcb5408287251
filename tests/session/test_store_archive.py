"""Sessions that go to the archive and come back while others write to them and read them."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from session import archive, ids
from session.errors import StorageError
from session.ids import SessionId
from session.store import Store
from session.transcript import Transcript
from tests.session.disk import Disk
from tests.session.stores import HERE, LONG, THERE, Gate, everything, note, path_of, user


def packed(opened: Store, of: SessionId = HERE) -> Path:
    return archive.path_of(opened.data_dir, ids.file_name(of))


async def put_away(opened: Store, of: SessionId = HERE) -> None:
    await opened.settle(of)
    assert await opened.archive(of) is None
    assert not path_of(opened, of).exists()


async def test_a_session_goes_on_where_it_was(opened: Store) -> None:
    cursor = (await opened.append(HERE, [user("m1")]))[-1].cursor
    await put_away(opened)
    assert await opened.end(HERE) == cursor  # whoever held a cursor goes on with it
    assert path_of(opened).exists()
    assert not packed(opened).exists()
    await put_away(opened)
    await opened.append(HERE, [user("m2")])  # nobody has looked at it before
    assert await everything(opened) == [user("m1"), user("m2")]
    assert opened.maybe_open() == [HERE]
    assert [record.event for record in await opened.after(HERE, cursor, 9)] == [user("m2")]


async def test_what_may_be_open_stays(opened: Store) -> None:
    await opened.append(HERE, [user("m1")])
    assert await opened.archive(HERE) == "something in it is still open"
    await put_away(opened)
    assert await opened.archive(HERE) == "it is archived already"
    assert await opened.archive(THERE) == "it is gone"
    assert not path_of(opened, THERE).exists()


async def test_a_listing_has_it_once(opened: Store) -> None:
    for of in (HERE, THERE, LONG):
        await opened.append(of, [user("m1")])
    modified = path_of(opened, LONG).stat().st_mtime
    await put_away(opened, LONG)
    entries = {entry.session: entry for entry in await opened.listing()}
    assert {session: entry.archived for session, entry in entries.items()} == {
        HERE: False, THERE: False, LONG: True
    }  # fmt: skip
    assert entries[LONG].modified == modified
    path_of(opened, LONG).write_bytes(b"")  # both are there
    assert len(await opened.listing()) == 2  # a shortened name without a header is no session's
    assert [entry.session for entry in await opened.listing()].count(HERE) == 1


async def test_deleting_takes_the_archive_along_and_what_was_sent(opened: Store) -> None:
    peer = SessionId("agent:main:telegram:user:7")
    await opened.append(peer, [user("7_1")])
    media = opened.data_dir / "media" / "telegram"
    media.mkdir(parents=True)
    (media / "7_1.jpg").touch()
    await put_away(opened, peer)
    assert await opened.delete(peer)
    assert not await opened.delete(peer)
    assert await opened.end(peer) is None
    assert not list(media.iterdir())
    assert not packed(opened, peer).exists()
    await opened.append(peer, [user("7_1")])
    assert await everything(opened, peer) == [user("7_1")]


async def test_a_torn_tail_is_cut_off_before(opened: Store) -> None:
    await opened.append(HERE, [note("a")])
    async with opened._files.without(ids.file_name(HERE)):
        with path_of(opened).open("ab") as file:
            file.write(b'{"role":"us')
    await put_away(opened)
    assert await everything(opened) == [note("a")]
    assert opened.repaired == [ids.file_name(HERE)]


async def test_a_disk_that_is_full_begins_no_second_conversation(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [user("m1")])
    await put_away(opened)
    disk.fail("utime", errno.ENOSPC, times=2)
    with pytest.raises(OSError, match="No space"):
        await opened.end(HERE)
    with pytest.raises(StorageError):
        await opened.append(HERE, [user("m2")])
    assert not path_of(opened).exists()
    await opened.append(HERE, [user("m2")])
    assert await everything(opened) == [user("m1"), user("m2")]


async def test_a_damaged_archive_stops_nobody_from_speaking(opened: Store) -> None:
    await opened.append(HERE, [user(f"m{n}") for n in range(50)])
    await put_away(opened)
    packed(opened).write_bytes(packed(opened).read_bytes()[:-9])
    await opened.append(HERE, [user("more")])
    assert (await everything(opened))[-1] == user("more")
    assert user("m0") in await everything(opened)
    assert opened.salvaged == [ids.file_name(HERE)]
    assert await opened.tidy_archive() == [ids.file_name(HERE)]
    await opened.settle(HERE)
    assert await opened.archive(HERE) == "its archive holds something else: both are kept"


async def test_what_a_crash_left_is_tidied(opened: Store) -> None:
    await opened.append(HERE, [user("m1")])
    await put_away(opened)
    left = packed(opened).read_bytes()
    await opened.append(HERE, [user("m2")])
    packed(opened).write_bytes(left)
    assert await opened.tidy_archive() == []
    assert not packed(opened).exists()
    assert await everything(opened) == [user("m1"), user("m2")]


async def test_appends_while_it_goes_to_and_fro_are_stored_in_order(opened: Store) -> None:
    said = [note(f"n{n}") for n in range(60)]
    going = True

    async def there() -> int:
        archived = 0
        while going:
            archived += await opened.archive(HERE) is None
            await opened.tidy_archive()
        return archived

    async def look() -> None:
        while going:
            seen = await everything(opened)
            assert seen == said[: len(seen)]

    others = [asyncio.create_task(there()), asyncio.create_task(there()), asyncio.create_task(look())]
    for event in said:
        await opened.append(HERE, [event])
    going = False
    archived, more, _ = await asyncio.gather(*others)
    assert archived + more
    assert await everything(opened) == said


async def test_an_open_session_costs_nothing_more(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [note("a")])
    async with opened._files.without(ids.file_name(HERE)):
        pass
    disk.calls.clear()
    await opened.end(HERE)
    assert disk.calls["stat"] == 0
    assert disk.calls["open"] == 1
    await opened.end(THERE)
    assert disk.calls["stat"] == 1  # only where there is no file


async def test_a_shortened_name_is_known_in_the_archive(opened: Store) -> None:
    await opened.append(LONG, [user("m1")])
    await put_away(opened, LONG)
    transcript, _ = archive.opened(opened.data_dir, ids.file_name(LONG))
    assert isinstance(transcript, Transcript)
    transcript.close()
    assert [entry.session for entry in await opened.listing()] == [LONG]


async def test_tidying_waits_for_whoever_is_at_it(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [note("a")])
    gate = Gate(disk, "unlink")  # both files are there: the archive is made, the transcript is to go
    archiving = asyncio.create_task(opened.archive(HERE))
    await gate.entered()
    tidying = asyncio.create_task(opened.tidy_archive())
    async with asyncio.timeout(30):
        while not disk.calls["scandir"]:  # noqa: ASYNC110 - a thread's call: no event says so
            await asyncio.sleep(0.001)
    await asyncio.wait({tidying}, timeout=0.05)  # if it could go on, it would: it must not
    gate.open()
    assert await archiving is None
    assert await tidying == []
    assert await everything(opened) == [note("a")]
