"""What the tests of `session` share: bounded property tests, and a disk that can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from session import archive, directory, hints, listing, lock, probe, transcript
from session.store import Store
from session.transcript import Transcript
from tests.session import transcripts
from tests.session.disk import Disk
from tests.session.stores import transcripts_open

settings.register_profile(
    "quick",
    max_examples=50,
    deadline=None,  # the machine is shared: nothing here is timed
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("quick")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The `os` module as the package sees it: counts its calls, and fails those that a test names."""
    disk = Disk()
    for module in (archive, directory, hints, listing, lock, probe, transcript):
        monkeypatch.setattr(module, "os", disk)
    return disk


@pytest.fixture
def quick_disk(disk: Disk) -> Disk:
    """The same, without waiting for the real disk."""
    disk.instead["fdatasync"] = disk.instead["fsync"] = lambda fd: None
    return disk


@pytest.fixture
def folder(tmp_path: Path, quick_disk: Disk) -> Path:
    return tmp_path


@pytest.fixture
def file(folder: Path) -> Iterator[Transcript]:
    file = transcripts.opened(folder)
    file.append([transcripts.user("before")])
    yield file
    file.close()


@pytest.fixture
async def opened(tmp_path: Path, quick_disk: Disk) -> AsyncIterator[Store]:
    opened = Store(tmp_path, max_open=8, threads=4)
    opened.start()
    yield opened
    await opened.close()
    assert transcripts_open(tmp_path) == 0
