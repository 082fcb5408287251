"""A failing disk is told to exactly those whose events it refused."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from session import ids
from session.errors import BadEvent, StorageError
from session.events import ToolCall
from session.listing import id_of
from session.store import Store
from session.transcript import Transcript
from tests.fakes.garbage import garbage
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


@pytest.mark.parametrize("call", ["write", "fdatasync", "fstat", "open", "pread"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EMFILE])
async def test_a_failed_append_is_told_to_its_callers_and_the_next_one_works(
    opened: Store, disk: Disk, call: str, error: int
) -> None:
    await opened.append(HERE, [user("m0")])
    if call in ("open", "pread"):
        for number in range(20):  # push it out of the open files
            await opened.append(session(number), [note("n")])
    disk.fail(call, error)
    refused = [opened.append(HERE, [note("a")]), opened.append(HERE, [note("b")])]
    for result in await asyncio.gather(*refused, return_exceptions=True):
        assert isinstance(result, StorageError)
        assert result.errno == error
    assert opened.fault is not None
    assert os.strerror(error) in opened.fault
    await opened.append(HERE, [note("c")])
    assert opened.fault is None
    assert await everything(opened) == [user("m0"), note("c")]
    assert opened.repaired == []


async def test_the_other_sessions_do_not_notice(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [note("a")])
    await opened.append(THERE, [note("a")])
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(StorageError, match=r"agent-main-cli-local\.jsonl: Input/output error"):
        await opened.append(HERE, [note("b")])
    assert opened.fault is not None
    assert "Input/output error" in opened.fault
    await opened.append(THERE, [note("b")])
    assert opened.fault is None
    assert await everything(opened) == [note("a")]


async def test_a_hint_that_fails_refuses_the_message(opened: Store, disk: Disk) -> None:
    disk.fail("fdatasync", errno.ENOSPC)
    with pytest.raises(StorageError, match=r"open\.log"):
        await opened.append(HERE, [user("m1")])
    assert not path_of(opened).exists()
    await opened.append(HERE, [user("m1")])
    assert await everything(opened) == [user("m1")]


async def test_what_could_not_be_taken_back_is_not_there_later_either(opened: Store, disk: Disk) -> None:
    """Told to have failed, then found in the file after all: the message would be answered twice."""
    await opened.append(HERE, [user("m0")])
    disk.fail("fdatasync", errno.EIO)
    disk.fail("ftruncate", errno.EIO, times=3)
    for _ in range(3):
        with pytest.raises(StorageError):
            await opened.append(HERE, [user("m1")])
    await opened.append(HERE, [user("m2")])
    assert await everything(opened) == [user("m0"), user("m2")]


async def test_an_event_that_is_no_json_is_refused_alone(opened: Store, disk: Disk) -> None:
    await opened.append(HERE, [note("0")])
    gate = Gate(disk, "fdatasync")
    first = opened.append(HERE, [note("1")])
    await gate.entered()
    bad = opened.append(HERE, [ToolCall(name="x", args=object())])
    good = opened.append(HERE, [note("2")])
    gate.open()
    await asyncio.gather(first, good)
    with pytest.raises(BadEvent):
        await bad
    assert opened.fault is None  # the disk is fine
    assert await everything(opened) == [note("0"), note("1"), note("2")]


async def test_a_defect_is_told_and_does_not_stop_the_session(
    opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Transcript, "append", lambda self, batch, sync: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await opened.append(HERE, [note("a")])
    await opened.append(HERE, [note("b")])
    assert await everything(opened) == [note("b")]


async def test_the_probe(opened: Store, disk: Disk) -> None:
    await opened.probe()
    assert opened.fault is None
    for call in ("open", "write", "fdatasync"):
        disk.fail(call, errno.ENOSPC)
        await opened.probe()
        assert opened.fault is not None
        assert "No space left" in opened.fault
        await opened.probe()
        assert opened.fault is None
    assert not (opened.data_dir / "probe").exists()


async def test_the_probe_sees_a_folder_that_is_gone(opened: Store) -> None:
    """The data directory itself was writable: /healthz said 200 while no session could be made."""
    sessions = opened.data_dir / "sessions"
    sessions.rename(opened.data_dir / "moved")
    with pytest.raises(StorageError):
        await opened.append(HERE, [user("m1")])
    await opened.probe()
    assert opened.fault is not None
    assert "sessions" in opened.fault
    (opened.data_dir / "moved").rename(sessions)
    await opened.probe()
    assert opened.fault is None


async def test_a_file_deleted_by_hand_costs_one_append(opened: Store) -> None:
    await opened.append(HERE, [user("m1")])
    path_of(opened).unlink()
    with pytest.raises(StorageError, match="deleted"):
        await opened.append(HERE, [user("m2")])
    await opened.append(HERE, [user("m2")])
    assert await everything(opened) == [user("m2")]


async def test_bad_lines_and_torn_tails_are_told_once(opened: Store) -> None:
    await opened.append(HERE, [user("m1")])
    with path_of(opened).open("ab") as file:
        place = file.tell()
        file.write(b"nonsense\n\n" + b'{"role":"user","con')
    await opened.close()
    again = Store(opened.data_dir)
    again.start()
    for _ in range(3):
        assert said(await again.recent(HERE, lambda record: False)) == [user("m1")]
    assert again.skipped == {(ids.file_name(HERE), place)}
    assert again.repaired == [ids.file_name(HERE)]
    await again.close()


async def test_an_empty_file_that_was_read_first_begins_with_a_header(opened: Store) -> None:
    path_of(opened, LONG).touch()  # a daemon that was killed between making the file and writing to it
    end = await opened.end(LONG)
    assert end is not None
    await opened.append(LONG, [user("m1")])
    assert id_of(opened.data_dir, ids.file_name(LONG)) == LONG


FULL = """
import asyncio, subprocess, sys
from pathlib import Path
from session.errors import StorageError
from session.events import User
from session.ids import SessionId
from session.store import Store

folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)


async def main():
    opened = Store(folder)
    opened.start()
    sessions = [SessionId(f"agent:main:cli:s{n}") for n in range(4)]
    stored = {of: [] for of in sessions}
    refused = 0
    for number in range(4000):
        of = sessions[number % 4]
        try:
            await opened.append(of, [User(content="x" * (number % 3000), id=f"m{number}")])
            stored[of].append(f"m{number}")
        except StorageError as error:
            refused += 1
            assert opened.fault and "open" not in str(error.strerror).lower().split(), error
            if refused == 50:
                break
    assert refused == 50 and sum(map(len, stored.values())) > 100
    for of in sessions:
        found = [r.event.id for r in await opened.after(of, None, 10_000) if isinstance(r.event, User)]
        assert found == stored[of], of
    await opened.probe()
    assert opened.fault
    assert await opened.delete(sessions[0])
    await opened.probe()
    assert opened.fault is None
    for of in sessions:
        await opened.append(of, [User(content="back", id="last")])
        text = (folder / "sessions" / f"agent-main-cli-{of[-2:]}.jsonl").read_bytes()
        assert text.endswith(b"}\\n")
    assert opened.fault is None and not opened.repaired
    await opened.close()
    again = Store(folder)
    again.start()
    for of in sessions[1:]:
        found = [r.event.id for r in await again.after(of, None, 10_000) if isinstance(r.event, User)]
        assert found == [*stored[of], "last"]
    assert not again.repaired
    await again.close()


asyncio.run(main())
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        allowed = subprocess.run(
            [*inside, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)],
            capture_output=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here")
    if allowed.returncode:
        pytest.skip(f"no file system of one's own may be mounted here: {allowed.stderr.decode().strip()}")
    done = subprocess.run(
        [*inside, sys.executable, "-W", "error", "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_failed_append_leaves_nothing_to_the_garbage_collector(opened: Store, disk: Disk) -> None:
    """A full disk refuses a hundred in a second, for minutes."""
    await opened.append(HERE, [user("m0")])
    disk.fail("write", errno.ENOSPC, times=10)
    with garbage() as left:
        for number in range(3):
            with pytest.raises(StorageError):
                await opened.append(HERE, [note(f"n{number}")])
    assert left.of("asyncio", "builtins", "concurrent", "session") == set()
