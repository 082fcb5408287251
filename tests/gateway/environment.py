"""A process environment in which only what a test sets is set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_OURS = ("LUNAR_", "OPENAI_", "XDG_", "CREDENTIALS_")


def cleared(environment: dict[str, str]) -> dict[str, str]:
    """The environment without anything that the gateway looks at."""
    return {name: value for name, value in environment.items() if not name.startswith(_OURS)}


def clear(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Clear this process's environment, and make `home` its home and working directory."""
    for name in set(os.environ) - set(cleared(dict(os.environ))):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
