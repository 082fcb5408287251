"""Sessions of today and the space that is left."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gateway.disk import Disk


def write(data_dir: Path, name: str, *, days_ago: int = 0) -> None:
    file = data_dir / "sessions" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    then = time.time() - 86_400 * days_ago
    os.utime(file, (then, then))


async def test_sessions_of_today_and_the_space(tmp_path: Path) -> None:
    write(tmp_path, "agent-main-cli-local.jsonl")
    write(tmp_path, "agent-main-cli-old.jsonl", days_ago=1)
    write(tmp_path, "agent-main-cli-local.jsonl.torn-1")
    sessions, space = await Disk(tmp_path).look()
    assert sessions == 1
    assert 0 < space["free_bytes"] <= space["total_bytes"]


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert await Disk(tmp_path / "none").look() == (0, {})


async def test_a_look_that_took_long_is_good_for_long(tmp_path: Path) -> None:
    times = iter([0.0, 2.0, 99.0, 100.0, 100.0])
    disk = Disk(tmp_path, clock=lambda: next(times))
    write(tmp_path, "agent-main-cli-a.jsonl")
    assert (await disk.look())[0] == 1  # from 0 s to 2 s
    write(tmp_path, "agent-main-cli-b.jsonl")
    assert (await disk.look())[0] == 1
    assert (await disk.look())[0] == 2
