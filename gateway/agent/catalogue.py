"""Every tool that there is, built in, functions and MCP servers; and which of them an agent may call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from gateway.agent.builtin_tools import BuiltinTools
from gateway.agent.environment import scrubbed
from gateway.agent.functions import Functions
from gateway.agent.mcp_server import McpServer
from gateway.agent.tools import Toolbox, ToolSource
from gateway.config import Tools as Settings
from gateway.errors import ConfigError
from session.protocols import TranscriptStore


class Catalogue:
    """Built once; `start` and `stop` with the gateway. `secrets` are kept from every program that is started.

    `faults`: for each function or server that does not work, why; a gateway without it answers all the same.
    """

    def __init__(self, settings: Settings, store: TranscriptStore, secrets: Iterable[str] = ()) -> None:
        environment = scrubbed(os.environ, secrets)
        self.faults: dict[str, str] = {}
        self.builtin = BuiltinTools(store)
        self._functions = Functions(settings.functions, environment, self.faults)
        self._servers = [
            McpServer(name, server, environment, self.faults) for name, server in settings.mcp.items()
        ]
        self._named = (*BuiltinTools.NAMES, *settings.functions)
        self._sources: Sequence[ToolSource] = (self.builtin, self._functions, *self._servers)
        if problems := list(self._clashes(settings)):
            raise ConfigError(problems)

    def _clashes(self, settings: Settings) -> Iterable[str]:
        for name in settings.functions:
            if name in BuiltinTools.NAMES:
                yield f"tools.functions.{name}: a built-in tool has this name; choose another"
            elif name in settings.mcp:
                yield f"tools.functions.{name}: an MCP server has this name; choose another"
            elif any(name.startswith(f"{server}__") for server in settings.mcp):
                yield f"tools.functions.{name}: the names of an MCP server's tools begin so; choose another"
        for name in settings.mcp:
            if "__" in name:
                yield f"tools.mcp.{name}: two underscores part a server from its tools; choose another name"

    def start(self) -> None:
        """Begin, in the background, to look at the functions and to run the servers."""
        self.builtin.start()
        self._functions.start()
        for server in self._servers:
            server.start()

    async def stop(self) -> None:
        """End every server, all at once, and wait until they are gone."""
        await asyncio.gather(
            self.builtin.stop(), self._functions.stop(), *(one.stop() for one in self._servers)
        )

    @property
    def states(self) -> dict[str, str]:
        """How every configured function and server is, by name."""
        return {**self._functions.states, **{server.name: server.state for server in self._servers}}

    @property
    def public(self) -> dict[str, str]:
        """The same, with `down` for whatever does not work: why is for operators."""
        down = {label.rpartition(".")[2] for label in self.faults}
        return {name: "down" if name in down else state for name, state in self.states.items()}

    def toolbox(self, allowed: Sequence[str]) -> Toolbox:
        """The tools with these names, or whose names match these patterns (a shell's)."""
        return Toolbox((), self._sources, lambda name: any(fnmatchcase(name, one) for one in allowed))

    def problem(self, entry: str) -> str | None:
        """Why an entry of an agent's `tools` can never be a tool; None where it is or may become one."""
        servers = [server.name for server in self._servers]
        if any(fnmatchcase(name, entry) for name in self._named):
            return None
        if any(
            entry.startswith(f"{name}__") or fnmatchcase(name, entry.partition("__")[0]) for name in servers
        ):
            return None
        known = ", ".join([*self._named, *(f"{name}__*" for name in servers)])
        return f"there is no tool {entry!r}; there are: {known}"
