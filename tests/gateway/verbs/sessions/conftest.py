"""Each test has a data directory of its own, which `lunar` finds by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.environment import clear


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("LUNAR_DATA_DIR", str(tmp_path / "d"))
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path / "d"
