"""Whether what the tools are made of is there; a tool that is not keeps no gateway from answering."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator

from gateway.agent.environment import scrubbed
from gateway.agent.functions import Functions
from gateway.checks.finding import Finding, Scene, ok, warning
from gateway.config import Function
from gateway.config_secrets import secrets


def tools(scene: Scene) -> Iterator[Finding]:
    """Functions are loaded, each in a process of its own; of servers, the programs are looked for."""
    told = scene.config.tools
    missing: list[Finding] = []
    readable: dict[str, Function] = {}
    for name, function in told.functions.items():
        file, _, _ = function.call.rpartition(":")
        if file.endswith(".py") and not os.access(file, os.R_OK):
            text = f"{scene.key('tools', 'functions', name, 'call')}: {file} cannot be read"
            missing.append(warning(text, "correct the path, or make the file readable for this user"))
        else:
            readable[name] = function
    missing += _unusable(scene, readable)
    for name, server in told.mcp.items():
        program = server.command[0] if server.command else None
        if program and not shutil.which(os.path.join(server.cwd, program) if "/" in program else program):
            text = f"{scene.key('tools', 'mcp', name, 'command')}: there is no program {program}"
            missing.append(warning(text, "install it, or write its whole path"))
    count = len(told.functions) + len(told.mcp)
    yield from missing or [ok(f"{count} of your own" if count else "the built-in ones alone")]


def _unusable(scene: Scene, functions: dict[str, Function]) -> Iterator[Finding]:
    """The functions that the gateway could not offer to a model."""
    faults: dict[str, str] = {}

    async def look() -> None:
        found = Functions(functions, scrubbed(os.environ, secrets(scene.config)), faults)
        found.start()
        await found.described()

    if functions:
        asyncio.run(look())
    for label, why in faults.items():
        where = scene.key(*label.split("."), "call")
        yield warning(f"{where}: {why}", "correct it there; docs/tools.md says what a tool must be")
