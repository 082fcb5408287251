"""An MCP server of our own for what the others do not do: `python -m tests.fakes.mcp_program FILE`.

It notes in FILE, a JSON object a line, that it was started and which calls were begun, ended and cancelled.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer

_FILE = Path(sys.argv[1])
server = MCPServer("ours")


def _note(**what: Any) -> None:
    with _FILE.open("a") as file:
        file.write(json.dumps(what) + "\n")


@server.tool()
def environment() -> str:
    """Show the environment."""
    return json.dumps(dict(os.environ))


@server.tool(name="note.it")
def note(word: str) -> str:
    """Note a word."""
    _note(noted=word)
    return f"noted {word}"


@server.tool(name="note_it")
def note_too(word: str) -> str:
    """Note a word, under a name that looks alike once it is one that a model may use."""
    _note(noted_too=word)
    return f"noted {word}, too"


@server.tool()
async def hang(name: str) -> str:
    """Never answer."""
    _note(begun=name)
    try:
        await asyncio.Event().wait()
    finally:
        _note(ended=name)
    return "never"


@server.tool()
def much(size: int) -> str:
    """Say much."""
    return "x" * size


@server.tool()
async def grow(ctx: Context) -> str:
    """Have one more tool from now on."""

    def grown() -> str:
        """The new one."""
        return "I am new."

    server.add_tool(grown)
    await ctx.notify_tools_changed()
    return "grown"


@server.tool()
def leave(code: int) -> str:
    """End at once."""
    os._exit(code)


if __name__ == "__main__":
    _note(started=os.getpid(), child=subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL).pid)
    if len(sys.argv) > 2:  # a server that never says a word
        sys.stdin.read()
    server.run("stdio")
