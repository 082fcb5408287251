"""Whether what the tools are made of is there; a tool that is not keeps no gateway from answering."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from gateway.checks.finding import Finding, Scene, ok, warning


def tools(scene: Scene) -> Iterator[Finding]:
    """Files of functions, and programs of servers; none is started."""
    told = scene.config.tools
    missing: list[Finding] = []
    for name, function in told.functions.items():
        file, _, _ = function.call.rpartition(":")
        if file.endswith(".py") and not os.access(file, os.R_OK):
            text = f"{scene.key('tools', 'functions', name, 'call')}: {file} cannot be read"
            missing.append(warning(text, "correct the path, or make the file readable for this user"))
    for name, server in told.mcp.items():
        program = server.command[0] if server.command else None
        if program and not shutil.which(os.path.join(server.cwd, program) if "/" in program else program):
            text = f"{scene.key('tools', 'mcp', name, 'command')}: there is no program {program}"
            missing.append(warning(text, "install it, or write its whole path"))
    count = len(told.functions) + len(told.mcp)
    yield from missing or [ok(f"{count} of your own" if count else "the built-in ones alone")]
