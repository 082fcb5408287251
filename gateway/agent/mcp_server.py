"""One configured MCP server: kept running, its tools kept known, its failures told."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from gateway.agent.tools import PATIENCE, Tool, ToolFailed
from gateway.config import McpServer as Settings
from gateway.redaction import known
from session.ids import SessionId

if TYPE_CHECKING:
    from gateway.agent.mcp_connection import Connection, Offered

log = structlog.get_logger(__name__)

FIRST_PAUSE = 1.0  # seconds before a server that failed is started again
LONGEST_PAUSE = 60.0
_STEADY = 60.0  # seconds after which a failure counts as the first one again
_STARTING = 60.0  # seconds until it has listed its tools
_LOOK_AGAIN = 30.0  # seconds after which an idle server is asked for its tools again
_ANSWERING = 10.0  # seconds that it has for that
_ENDING = 6.0  # seconds; the library gives a program two to end by itself, and two more to obey SIGTERM
_LONGEST_NAME = 64  # what providers take as a tool's name
_LONGEST_DESCRIPTION = 4096
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_NOT_REACHABLE = "its server cannot be reached just now"


class McpServer:
    """A `ToolSource`; `start` begins to keep it running, `stop` ends it. `faults`: where failures go."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        environment: Mapping[str, str],
        faults: dict[str, str],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._settings = settings
        self._environment = environment
        self._faults = faults
        self._sleep = sleep
        self._tools: list[Tool] = []
        self._connection: Connection | None = None
        self._gone = False  # set by `ended`, or by a call that found nobody
        self._calls = 0  # under way
        self._news = asyncio.Event()  # something is to be looked at
        self._tried = asyncio.Event()  # it runs, failed to, or should have by now
        self._stopping = False  # set by `stop`
        self._keeping: asyncio.Task[None] | None = None

    # -- as a source of tools ---------------------------------------------------------------------

    def tools(self) -> Sequence[Tool]:
        """Those of the server while it runs."""
        return self._tools

    def repeatable(self, name: str) -> bool:
        """Whether a call that a crash broke off may be made again, be the server there or not."""
        told = self._settings.idempotent
        if isinstance(told, bool):
            return told and name.startswith(f"{self.name}__")
        return any(name == exposed(self.name, tool) for tool in told)

    async def ready(self, session: SessionId) -> None:
        """Wait until it runs, has failed once, or could have been there."""
        await self._tried.wait()

    @property
    def state(self) -> str:
        """How many tools it has, `starting`, or why it does not run."""
        if self._connection:
            return f"{len(self._tools)} tools"
        return self._faults.get(self._label, "starting")

    @property
    def _label(self) -> str:
        return f"tools.mcp.{self.name}"

    # -- as a `Watcher` ---------------------------------------------------------------------------

    def changed(self) -> None:
        """The server says that it has other tools now."""
        self._news.set()

    def ended(self) -> None:
        """Nothing more will come from it."""
        self._gone = True
        self._news.set()

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to keep it running."""
        self._keeping = asyncio.create_task(self._keep(), name=f"MCP server {self.name}")
        asyncio.get_running_loop().call_later(PATIENCE, self._tried.set)

    async def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._stopping = True
        while self._keeping and not self._keeping.done():
            # More than once: while it connects, the library may turn a cancellation into another error.
            self._keeping.cancel()
            await asyncio.wait({self._keeping}, timeout=_ENDING)

    async def _keep(self) -> None:
        failures = 0
        clock = asyncio.get_running_loop().time
        while not self._stopping:
            began = clock()
            try:
                await self._serve()
                why = "it ended by itself"
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                why = "it was cancelled from within"  # by the library: nobody stopped the server
            except Exception as error:
                why = _why(error)
            finally:
                self._connection, self._tools = None, []
            if self._stopping:
                return
            failures = 1 if clock() - began > _STEADY else failures + 1
            pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE) * random.uniform(0.75, 1.25)
            self._faults[self._label] = why
            self._tried.set()
            log.warning("an MCP server failed", server=self.name, why=why, again_in=round(pause, 1))
            await self._sleep(pause)

    async def _serve(self) -> None:
        library = await asyncio.to_thread(importlib.import_module, "gateway.agent.mcp_connection")
        self._gone = False
        async with asyncio.timeout(_STARTING) as limit:
            async with library.connected(self.name, self._settings, self._environment, self) as connection:
                await self._list(connection)
                limit.reschedule(None)
                self._connection = connection
                self._faults.pop(self._label, None)
                self._tried.set()
                log.info("MCP server ready", server=self.name, tools=len(self._tools))
                changes = asyncio.create_task(_quietly(connection.changes(self)))
                try:
                    await self._watch(connection)
                finally:
                    changes.cancel()
                    await asyncio.wait({changes})

    async def _watch(self, connection: Connection) -> None:
        """Keep the list of its tools right, until it is gone."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._news.wait()
            if self._gone:
                return
            if self._news.is_set() or not self._calls:  # one that is busy may be slow, and is no worse for it
                self._news.clear()
                async with asyncio.timeout(_ANSWERING):
                    await self._list(connection)

    async def _list(self, connection: Connection) -> None:
        offered = await connection.tools()
        plain = {tool.name for tool in offered}
        tools = {tool.name: tool for tool in (self._tool(one, plain) for one in offered)}
        if [tool.name for tool in self._tools] != list(tools) and self._connection:
            log.info("MCP server changed its tools", server=self.name, tools=len(tools))
        self._tools = list(tools.values())

    def _tool(self, offered: Offered, others: set[str]) -> Tool:
        async def run(**args: Any) -> str:
            return await self._call(offered.name, args)

        return Tool(
            exposed(self.name, offered.name, others),
            offered.description[:_LONGEST_DESCRIPTION],
            offered.parameters,
            run,
            timeout=self._settings.timeout.total_seconds(),
            ask=_named(self._settings.ask, offered.name),
            idempotent=_named(self._settings.idempotent, offered.name),
        )

    async def _call(self, tool: str, args: dict[str, Any]) -> str:
        if (connection := self._connection) is None:
            raise ToolFailed(_NOT_REACHABLE)
        self._calls += 1
        try:
            return await connection.call(tool, args)
        except ToolFailed:
            raise
        except (OSError, RuntimeError) as error:
            self._news.set()  # is it still there? That is for `_watch` to find out
            raise ToolFailed(_NOT_REACHABLE) from error
        finally:
            self._calls -= 1


def exposed(server: str, tool: str, others: set[str] | frozenset[str] = frozenset()) -> str:
    """The name under which a model knows a server's tool; no two of `others` share one."""
    plain = f"{server}__{_NOT_IN_A_NAME.sub('_', tool)}"
    is_taken = _NOT_IN_A_NAME.sub("_", tool) != tool and any(
        other != tool and f"{server}__{_NOT_IN_A_NAME.sub('_', other)}" == plain for other in others
    )
    if len(plain) <= _LONGEST_NAME and not is_taken:
        return plain
    mark = hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{plain[: _LONGEST_NAME - 9]}_{mark}"


def _named(told: bool | tuple[str, ...], tool: str) -> bool:
    return told if isinstance(told, bool) else tool in told


def _why(error: BaseException) -> str:
    """What was at the bottom of it: the library wraps errors in groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return known.beginning(f"{type(error).__name__}: {error}".strip(), 500)


async def _quietly(work: Awaitable[None]) -> None:
    """What only makes changes known sooner may fail: the list is looked at again anyway."""
    with suppress(Exception):
        await work
