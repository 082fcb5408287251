"""Over which store a channel's tests run."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment (`tests.fakes.kept`), or by the test: `@both_stores`."""
    if chosen := getattr(request, "param", None):
        monkeypatch.setenv("LUNAR_TEST_STORE", chosen)
