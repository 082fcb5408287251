"""The one HTTP port."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.health import Health, Verdict
from gateway.redaction import known

_BACKLOG = 4096  # connections that wait, such as those of a restart; the kernel caps it (net.core.somaxconn)
_IDLE = 130.0  # seconds to the next request, or to the first; reverse proxies keep a connection up to 120 s
_UNREAD = 130.0  # seconds in which a client takes nothing of what it asked for
_BODY = 30.0  # seconds for what comes with a request
# Of every answer. What makes more of it than text, the page, has a policy of its own.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_LAST_GUESTS = 0.25  # seconds for those who were let in just before a stop; whoever comes later waits outside

# The secret that came along, and the body -> an HTTP status.
Hook = Callable[[str | None, bytes], Awaitable[int]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Routes(Protocol):
    """A channel that lives on the HTTP port: `channels.webchat.server.Webchat`."""

    @property
    def connections(self) -> int:
        """How many clients are connected."""

    def attach(self, app: web.Application) -> None:
        """Add its routes, and what it does at a shutdown."""


class HttpChannel:
    """Serves health, and the channels on the port. `bind` first, so that a start can fail in time."""

    name = "http"

    def __init__(
        self,
        host: str,
        port: int,
        health: Health,
        channels: Sequence[Routes] = (),
        metrics: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._metrics = metrics
        self._channels = channels
        self._hooks: dict[str, Hook] = {}
        self._inherited: tuple[socket.socket, ...] = ()
        self._sockets: tuple[socket.socket, ...] = ()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return sum(channel.connections for channel in self._channels)

    def adopt(self, inherited: Sequence[socket.socket]) -> None:
        """Serve on listening sockets that somebody else keeps open (systemd); `bind` then makes none."""
        self._inherited = tuple(inherited)

    def hook(self, path: str, receive: Hook) -> None:
        """Let somebody's server bring something to this path, by POST; `receive` gives the HTTP status."""
        self._hooks[path] = receive

    def bind(self) -> None:
        """Listen; raises `OSError` where the address is taken or not ours."""
        if self._inherited:
            # Copies: serving closes them, and what comes between two runs waits in the kernel.
            self._sockets = tuple(listener.dup() for listener in self._inherited)
            return
        family, _, _, _, address = socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
        listener.setblocking(False)
        self._sockets = (listener,)

    @property
    def port(self) -> int:
        """The port that is listened on; another than the configured one where that is 0."""
        if self._sockets:
            self._port = int(self._sockets[0].getsockname()[1])
        return self._port

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled."""
        if not self._sockets:
            self.bind()
        logging.getLogger("aiohttp.server").addFilter(_is_about_us)
        loop = asyncio.get_running_loop()
        doors: list[asyncio.Server] = []
        runner = web.AppRunner(self._app(), handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            assert runner.server is not None
            # A `SockSite` would serve with aiohttp's own `RequestHandler`.
            client = partial(
                _Client,
                runner.server,
                loop=loop,
                keepalive_timeout=_IDLE,
                access_log=None,  # type: ignore[arg-type]  # none, which its types do not know
            )
            for listener in self._sockets:
                # Each connection inherits it. The kernel waits for ever for one that lives and does not read.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_UNREAD * 1000))
                doors.append(await loop.create_server(client, sock=listener, backlog=_BACKLOG))
            ready()
            await loop.create_future()
        finally:
            for door in doors:
                door.close()
            if self._inherited:
                await asyncio.sleep(_LAST_GUESTS)
            await runner.cleanup()
            for listener in self._sockets:
                listener.close()
            self._sockets = ()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_read])
        app.on_response_prepare.append(_prepare)
        app.router.add_get("/healthz", self._live)
        app.router.add_get("/readyz", self._ready)
        if self._metrics is not None:
            app.router.add_get("/metrics", self._figures)
        app.router.add_post("/telegram/{hook}", self._brought)
        for channel in self._channels:
            channel.attach(app)
        return app

    async def _brought(self, request: web.Request) -> web.Response:
        if (receive := self._hooks.get(request.path)) is None:
            return web.Response(status=404)
        secret = request.headers.get("X-Telegram-Bot-Api-Secret-Token")
        return web.Response(status=await receive(secret, await request.read()))

    async def _figures(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        assert self._metrics is not None
        return web.Response(body=await self._metrics(), headers=headers)

    async def _live(self, request: web.Request) -> web.Response:
        return _answer(self._health.live())

    async def _ready(self, request: web.Request) -> web.Response:
        notes = {f"channel {name}": known.text(note) for name, note in self._health.notes().items()}
        return _answer(self._health.ready(), notes)


@web.middleware
async def _read(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have the body here before anybody works on the request: who says it is on its way may never send it."""
    if request.can_read_body:
        try:
            async with asyncio.timeout(_BODY):
                await request.read()
        except TimeoutError:
            return web.Response(status=408, text="The body of this request did not come.\n")
        except (web.RequestPayloadError, ConnectionError):  # it is no HTTP, or the client is gone
            return web.Response(status=400, text="The body of this request is no HTTP.\n")
    return await handler(request)


class _Client(web.RequestHandler):
    """One connection. What is no HTTP is answered before there is a request that a route could take."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp answers to it, with our headers."""
        answer = super().handle_error(request, status, exc, message)
        _mark(answer)
        return answer


async def _prepare(request: web.Request, answer: web.StreamResponse) -> None:
    _mark(answer)


def _mark(answer: web.StreamResponse) -> None:
    answer.headers["Server"] = "lunar"  # else aiohttp's version, and Python's
    for name, value in _HEADERS.items():
        answer.headers.setdefault(name, value)


def _is_about_us(record: logging.LogRecord) -> bool:
    # What is no HTTP comes to every port and is answered 400: it must not fill the log with tracebacks.
    theirs = (HttpProcessingError, web.RequestPayloadError)
    return not (record.exc_info and isinstance(record.exc_info[1], theirs))


def _answer(verdict: Verdict, notes: Mapping[str, str] | None = None) -> web.Response:
    body = {"ok": verdict.ok, "why": verdict.why} | ({"notes": notes} if notes else {})
    return web.json_response(body, status=200 if verdict.ok else 503, headers={"Cache-Control": "no-store"})
