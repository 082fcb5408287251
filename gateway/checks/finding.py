"""What a check looks at, and one line of what it found."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from gateway.config import Config
from gateway.config_problem import Places

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One line of the report. `fix`: what to do, empty where all is well; `code`: the sysexit it asks for."""

    level: Level
    text: str
    fix: str = ""
    code: int = 0


class Scene(NamedTuple):
    """What the checks may look at. `running`: what the gateway of this configuration says of itself."""

    config: Config
    places: Places
    running: Mapping[str, Any] | None
    offline: bool  # ask nobody outside this machine, and no model

    def key(self, *path: str | int) -> str:
        """A key as it is, or would be, written, with its place."""
        return self.places.of(self.places.as_written(path))


def used(config: Config) -> set[str]:
    """The models that some agent asks, first or when another does not answer."""
    return {name for agent in config.agents.values() for name in (agent.model, *agent.fallback)}


def ok(text: str) -> Finding:
    """All is well."""
    return Finding("ok", text)


def warning(text: str, fix: str) -> Finding:
    """It works, but not for long, not for everybody, or not safely."""
    return Finding("warning", text, fix)


def problem(text: str, fix: str, code: int) -> Finding:
    """The gateway would not start, or would not answer; `code` is a sysexit."""
    return Finding("problem", text, fix, code)


# What has to be mended first decides: nothing else can be judged well before.
_FIRST = (os.EX_CONFIG, os.EX_CANTCREAT, os.EX_NOPERM, os.EX_TEMPFAIL, os.EX_IOERR, os.EX_OSERR)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 where there is no problem, else the sysexit of the one that is to be mended first."""
    codes = {finding.code for finding in findings if finding.level == "problem"}
    return next((code for code in (*_FIRST, *sorted(codes)) if code in codes), 0)
