"""The table of checks, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gateway.checks import database, files, machine, secret, tools, upstream
from gateway.checks.finding import Finding, Scene


class Check(NamedTuple):
    """One row: `summary` is what it looks for."""

    name: str
    summary: str
    look: Callable[[Scene], Iterator[Finding]]


CHECKS = (
    Check("config", "is the file sound, and safe from others", files.config_file),
    Check("gateway", "is one running here, and what does it say of itself", machine.gateway),
    Check("data", "can transcripts be written, and read by nobody else", files.data),
    Check("disk", "is there room", files.disk),
    Check("database", "with store.url: can it be used, and is it safe", database.database),
    Check("socket", "can the Unix socket be made", files.socket),
    Check("port", "is the HTTP port free, or held by this gateway", machine.port),
    Check("limits", "may enough files be open", machine.limits),
    Check("secrets", "are they there, and well formed", secret.secrets),
    Check("tools", "are their files and programs there", tools.tools),
    Check("model", "does each model that is used answer", upstream.models),
    Check("telegram", "is the bot's token valid", upstream.telegram),
    Check("clock", "is it the time that it should be", upstream.clock),
)


def run(scene: Scene) -> Iterator[tuple[str, Finding]]:
    """Every finding, with its check's name."""
    for check in CHECKS:
        for finding in check.look(scene):
            yield check.name, finding
