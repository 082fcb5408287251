"""One connection to an MCP server, over the official library: list its tools, call one.

The library takes half a second to import: this module is loaded in a thread, where a server is configured.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import IO, Any, NamedTuple, Protocol, Self

import httpx2
import mcp_types as types
import structlog
from anyio.streams.text import TextReceiveStream
from mcp import Client, StdioServerParameters
from mcp.client import stdio
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from gateway import __version__
from gateway.agent import leash
from gateway.agent.brief import PLAIN, bounded
from gateway.agent.tools import ToolError, ToolFailed
from gateway.agent.undisturbed import undisturbed
from gateway.config import McpServer
from gateway.redaction import known

log = structlog.get_logger(__name__)
for _name in ("mcp", "client"):  # the library's own lines would repeat what we tell, without a server's name
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_MOST_TOOLS = 512
_CONNECTING = (
    30.0  # seconds for a connection and a request to be taken; answers may take as long as a call may
)
_GOODBYE = 2.0  # seconds for a server to take note that nobody asks it any more
_LONGEST_ANSWER = 16 << 20  # bytes, of a program characters; of a stream, the library limits each event
_MOST_ASKED = 64  # requests of a server that wait for our answers; each is answered at once
_LONGEST_LINE = 64 * 1024
_SHOWN = 1000  # characters of a line
_WIDE = {"COLUMNS": "10000"}  # a log that is wrapped as for a terminal may hold a key in two lines


class _Said(TextReceiveStream):
    """What a program says. The library would hold a line without end, and go through it again and again."""

    _line = 0  # characters of a line whose end did not come yet

    async def receive(self) -> str:
        text = await super().receive()
        _, newline, rest = text.rpartition("\n")
        self._line = len(rest) if newline else self._line + len(text)
        if self._line > _LONGEST_ANSWER:
            await self.aclose()  # which ends the connection, and with it the program
        return text


vars(stdio)["TextReceiveStream"] = _Said  # there is no other way to give it a limit


class Offered(NamedTuple):
    """A tool as its server describes it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Watcher(Protocol):
    """Who is told what happens to a connection."""

    def changed(self) -> None:
        """The server says that it has other tools now."""

    def ended(self) -> None:
        """Nothing more will come from it."""


class Connection:
    """A server that was greeted. A call is cancelled by cancelling its task: the server is told."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tools(self) -> list[Offered]:
        """All tools of the server; raises `MCPError` and what the network does."""
        found: list[Offered] = []
        cursor: str | None = None
        while len(found) < _MOST_TOOLS:
            page = await self._client.session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            found += [Offered(tool.name, tool.description or "", tool.input_schema) for tool in page.tools]
            if (cursor := page.next_cursor) is None:
                break
        return found[:_MOST_TOOLS]

    async def call(self, name: str, args: dict[str, Any]) -> str:
        """The text of a tool's result; raises `ToolError`, `ToolFailed`, and what the network does."""
        try:
            result = await self._client.call_tool(name, args)
        except MCPError as error:
            if error.code == types.INVALID_PARAMS:
                raise ToolError(error.message) from error
            if error.code in (types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT):
                raise ConnectionResetError(error.message) from error
            raise ToolFailed(error.message) from error
        text = "\n".join(map(_text, result.content)) or _structured(result)
        if result.is_error:
            raise ToolFailed(text or "it gave no reason")
        return text

    async def changes(self, watcher: Watcher) -> None:
        """Tell of changed tools, as servers since 2026-07-28 want to be asked; older ones just say so."""
        if self._client.session.discover_result is None:
            return
        async with self._client.listen(tools_list_changed=True) as events:
            async for _ in events:
                watcher.changed()


@asynccontextmanager
async def connected(
    name: str, settings: McpServer, environment: Mapping[str, str], watcher: Watcher
) -> AsyncIterator[Connection]:
    """Start the server, or reach it, and greet it. Whatever goes wrong comes as the library raises it."""

    async def heard(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            watcher.changed()

    us = types.Implementation(name="lunar-gateway", version=__version__)
    async with AsyncExitStack() as stack:
        transport = _started(name, settings, environment) if settings.command else _reached(settings)
        client = Client(_watched(transport, watcher.ended), cache=None, message_handler=heard, client_info=us)
        yield Connection(await stack.enter_async_context(client))


@asynccontextmanager
async def _started(name: str, settings: McpServer, environment: Mapping[str, str]) -> AsyncIterator[Any]:
    """A program of its own session, on a leash: it ends with us, however we end."""
    given = {key: value.get_secret_value() for key, value in settings.env.items() if value}
    leashed = ["-I", "-S", leash.__file__, str(os.getpid()), *settings.command]
    server = StdioServerParameters(
        command=sys.executable, args=leashed, env={**_WIDE, **environment, **given}, cwd=settings.cwd,
        encoding_error_handler="replace",
    )  # fmt: skip
    reading, writing = os.pipe()
    pipe = os.fdopen(reading, "rb", buffering=0)
    said = asyncio.create_task(_log(name, pipe))
    try:
        with os.fdopen(writing, "w") as errors:
            async with undisturbed(stdio_client(server, errlog=errors)) as streams:
                yield streams
    finally:
        said.cancel()
        await asyncio.wait({said})
        pipe.close()  # of a task that was cancelled before it began, nobody else would


async def _log(name: str, pipe: IO[bytes]) -> None:
    """What the server writes to stderr."""
    lines = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), pipe)
    try:
        rest = b""  # of a line whose end did not come yet: a secret may be written in two parts
        while block := await lines.read(_LONGEST_LINE):
            *whole, rest = (rest + block).split(b"\n")
            rest = rest[:_LONGEST_LINE]
            for line in whole:
                _tell(name, line)
        _tell(name, rest)
    finally:
        transport.close()


def _tell(name: str, line: bytes) -> None:
    if text := line.decode("utf-8", "replace").rstrip():
        log.debug("an MCP server said", server=name, text=known.beginning(text, _SHOWN))


@asynccontextmanager
async def _reached(settings: McpServer) -> AsyncIterator[Any]:
    headers = {key: value.get_secret_value() for key, value in settings.headers.items() if value}
    timeout = httpx2.Timeout(_CONNECTING, read=None)  # of calls, `Tool.timeout` is the limit
    assert settings.url
    async with (
        _Http(headers=headers | PLAIN, timeout=timeout) as http,
        streamable_http_client(settings.url, http_client=http) as streams,
    ):
        yield streams


class _Http(httpx2.AsyncClient):
    """A client that reads no endless answer, and waits for none to a goodbye."""

    async def send(self, request: httpx2.Request, **how: Any) -> httpx2.Response:
        """As the library's own; `DELETE` is by which a session is ended."""
        if request.method != "DELETE":
            response = await super().send(request, **how)
            if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                bounded(response, _LONGEST_ANSWER)
            return response
        async with asyncio.timeout(_GOODBYE):
            response = await super().send(request, **how)
        await response.aclose()
        return response


@asynccontextmanager
async def _watched(transport: Any, ended: Callable[[], None]) -> AsyncIterator[Any]:
    """The transport, and a word when its other end is gone: of an idle one the library says nothing."""
    async with transport as (read, write):
        answers = _Answers(write)
        yield _Watched(read, answers, ended), answers


class _Stream:
    """One half of a transport; `mcp.shared._stream_protocols`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._stream.__aexit__(*exc)


class _Answers(_Stream):
    """What is said to the server; `due` are the answers that it did not take yet."""

    due = 0

    async def send(self, message: Any) -> None:
        await self._stream.send(message)
        if isinstance(message.message, types.JSONRPCResponse | types.JSONRPCError):
            self.due -= 1


class _Watched(_Stream):
    """What the server says; tells when that ends. Whoever asks on and takes no answer has ended, too."""

    def __init__(self, stream: Any, answers: _Answers, ended: Callable[[], None]) -> None:
        super().__init__(stream)
        self._answers = answers
        self._ended = ended

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Any:
        try:
            message = await self._stream.__anext__()
            if isinstance(getattr(message, "message", None), types.JSONRPCRequest):
                self._answers.due += 1
            if self._answers.due > _MOST_ASKED:
                raise StopAsyncIteration
        except StopAsyncIteration:
            self._ended()
            raise
        return message


def _text(part: object) -> str:
    """One part of a result, as a model without eyes and ears gets it."""
    match part:
        case types.TextContent(text=text):
            return text
        case types.ImageContent(mime_type=mime, data=data) | types.AudioContent(mime_type=mime, data=data):
            return f"[{mime}, about {len(data) * 3 // 4} bytes: it cannot be shown here]"
        case types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, text=text)):
            return f"{uri}:\n{text}"
        case types.EmbeddedResource(resource=resource):
            return f"[{resource.uri}: not text]"
        case types.ResourceLink(uri=uri, name=name):
            return f"[{name}: {uri}]"
    return f"[{type(part).__name__}]"


def _structured(result: types.CallToolResult) -> str:
    found = result.structured_content
    return "" if found is None else json.dumps(found, ensure_ascii=False)
