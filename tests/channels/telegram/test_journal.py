"""The small files of facts: what a crash leaves of them, and what is on disk when a call returns."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from channels.telegram import journal
from channels.telegram.journal import Journal
from tests.session.disk import Disk


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories whose entries were waited for."""
    found: list[Path] = []
    monkeypatch.setattr(journal, "_sync_folder", found.append)
    return found


def test_what_a_crash_tore_is_passed_over_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b'{"a":1}\n{"b":')
    Journal(path).append({"c": 3})
    assert Journal(path).read() == [{"a": 1}, {"c": 3}]


def test_what_the_disk_refuses_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Journal(tmp_path / "facts.jsonl")
    facts.append({"a": 1})
    disk = Disk()
    monkeypatch.setattr(journal, "os", disk)
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        facts.append({"b": 2})
    disk.instead = {}
    assert facts.read() == [{"a": 1}]


def test_the_name_of_the_file_is_on_disk_with_its_first_line(tmp_path: Path, synced: list[Path]) -> None:
    facts = Journal(tmp_path / "facts.jsonl")
    facts.append({"a": 1})
    facts.append({"b": 2})
    assert synced == [tmp_path]
    facts.path.unlink()
    facts.append({"c": 3})
    assert synced == [tmp_path] * 2


def test_a_file_that_is_there_is_no_proof_that_its_name_is_on_disk(
    tmp_path: Path, synced: list[Path]
) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b'{"a":1}\n')
    Journal(path).append({"b": 2})
    assert synced == [tmp_path]
