"""One process holds a data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from session.errors import StoreLocked
from session.lock import DirectoryLock, reading

HOLDER = """
import sys, time
from pathlib import Path
from session.lock import DirectoryLock

lock = DirectoryLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_lock_file_names_its_holder(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1234567890 and something longer than what comes now\n")
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    assert (tmp_path / "lock").read_text() == f"process {os.getpid()}\n"
    lock.release()
    lock.release()


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.acquire()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(StoreLocked, match=rf"{tmp_path} is in use by process {os.getpid()}") as caught:
            second.acquire()
        assert caught.value.holder == f"process {os.getpid()}"
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert (tmp_path / "lock").read_text() == f"process {os.getpid()}\n"
    second.release()
    with pytest.raises(StoreLocked):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_lock_file_that_says_nothing_still_locks(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path)
    first.acquire()
    os.truncate(tmp_path / "lock", 0)
    with pytest.raises(StoreLocked, match="another process"):
        DirectoryLock(tmp_path).acquire()
    first.release()


def test_kill_9_lets_go_of_it(tmp_path: Path) -> None:
    process = holder(tmp_path)
    with process:
        with pytest.raises(StoreLocked, match=f"process {process.pid}"):
            DirectoryLock(tmp_path).acquire()
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        lock = DirectoryLock(tmp_path)
        lock.acquire()
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()}\n"
        lock.release()


def test_a_child_process_does_not_inherit_it(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    child = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as process:
        assert process.stdout is not None
        process.stdout.readline()
        lock.release()
        second = DirectoryLock(tmp_path)
        second.acquire()
        second.release()
        process.communicate(b"\n", timeout=30)


def test_a_directory_that_is_missing_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DirectoryLock(tmp_path / "nowhere").acquire()


LEAVES_A_CHILD = """
import os, signal, sys
from pathlib import Path
from session.lock import DirectoryLock

DirectoryLock(Path(sys.argv[1])).acquire()
if not os.fork():
    print("held", flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED)
"""


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """What had the lock was killed; a child that it started has it until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVES_A_CHILD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    yield process
    process.stdin.close()
    assert not process.stdout.read()  # the child is gone
    process.stdout.close()


def test_a_child_that_outlives_its_killed_gateway_is_waited_for(
    tmp_path: Path, orphan: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if not orphan.stdin.closed:  # type: ignore[union-attr]
            orphan.stdin.close()  # type: ignore[union-attr]
            orphan.stdout.read()  # type: ignore[union-attr]

    monkeypatch.setattr(time, "sleep", sleep)
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    assert waits
    assert (tmp_path / "lock").read_text() == f"process {os.getpid()}\n"
    lock.release()


def test_it_is_not_waited_for_long(
    tmp_path: Path, orphan: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    with pytest.raises(StoreLocked, match=f"in use by process {orphan.pid}"):
        DirectoryLock(tmp_path).acquire()
    assert 1.0 <= now[0] < 1.1
    with pytest.raises(StoreLocked), reading(tmp_path):
        pass
