"""Webchat: the page, the WebSocket, and deleting a conversation, on the gateway's HTTP port."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
from aiohttp import WSMsgType, web

from channels import connection, wire
from channels.connection import Entry, House
from channels.errors import Refused
from channels.webchat import assets
from channels.webchat.guard import Asked, Guard
from channels.webchat.limits import MESSAGES_BURST, MESSAGES_SECONDS, Allowance, Guesses
from session.ids import AgentId, Peer, PeerId, Provider

log = structlog.get_logger(__name__)

PROVIDER = Provider("webchat")
PING_SECONDS = 20.0
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_SEND_BUFFER = 256 * 1024  # bytes in the kernel; by itself it grows to 4 MB before a send waits
_ON_THE_WIRE = 2 * wire.MAX_CLIENT_FRAME  # what aiohttp takes: our own limit gets to say what is wrong

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access(NamedTuple):
    """Who may come in: the policy for pages and names, the gateway's token, the agents to ask."""

    guard: Guard
    token: str | None = None
    agents: tuple[str, ...] = ("main",)


class Webchat:
    """The routes of the web channel. `attach` them to an application that `gateway.http` runs."""

    def __init__(self, house: House, access: Access) -> None:
        self._house = house
        self.access = access  # another one when the configuration was read again
        self._guesses = Guesses()
        self._assets = assets.load()
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def attach(self, app: web.Application) -> None:
        """Add the page, `/ws` and `/api/session`."""
        app.router.add_get("/", self._guarded(self._page))
        app.router.add_get("/ws", self._guarded(self._websocket))
        app.router.add_delete("/api/session", self._guarded(self._delete))
        app.router.add_get("/{name}", self._guarded(self._page))
        app.on_shutdown.append(self._goodbye)

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if refusal := self.access.guard.refusal(_asked(request)):
                return web.Response(status=403, text=refusal + "\n", headers=assets.HEADERS)
            return await handler(request)

        return guarded

    # -- the page --------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.StreamResponse:
        asset = self._assets.get(request.match_info.get("name", "index.html"))
        if asset is None:
            return web.Response(status=404, text="There is nothing here.\n", headers=assets.HEADERS)
        headers = {**assets.HEADERS, "ETag": asset.etag, "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == asset.etag:
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = asset.type
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=asset.compressed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=asset.body, headers=headers)

    # -- the WebSocket ---------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        socket_ = web.WebSocketResponse(heartbeat=PING_SECONDS, compress=False, max_msg_size=_ON_THE_WIRE)
        try:
            if not socket_.can_prepare(request):
                text = "This is a WebSocket.\n"
                return web.Response(status=426, text=text, headers={"Upgrade": "websocket"})
            await socket_.prepare(request)
        except (ConnectionResetError, ValueError):
            # The client left before the upgrade, so that nobody reads this; or its key is not ASCII.
            return web.Response(status=400)
        _bound_buffer(request)
        door = _WebDoor(self.access, self._guesses, self.access.guard.client(_asked(request)))
        task = asyncio.create_task(self._serve(_Frames(socket_, request.transport), door))
        self._clients.add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._clients.discard(task)
        return socket_

    async def _serve(self, carrier: _Frames, door: _WebDoor) -> None:
        try:
            await connection.serve(carrier, door, self._house)
        except Exception:
            log.exception("a connection broke", channel="webchat")

    async def _goodbye(self, app: web.Application) -> None:
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients)

    # -- deleting a conversation -----------------------------------------------------------------

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """Remove a conversation for good: whoever has its secret may."""
        try:
            secret = json.loads(await request.text())["session"]
            door = _WebDoor(self.access, self._guesses, self.access.guard.client(_asked(request)))
            entry = door.enter(
                wire.Hello(protocol=1, session=secret, token=request.headers.get("X-Lunar-Token"))
            )
        except (ValueError, KeyError, TypeError):
            return web.Response(status=400, text='The body must be {"session": "<secret>"}.\n')
        except Refused as refused:
            status = 429 if refused.code == "rate_limited" else 401
            return web.Response(status=status, text=refused.public + "\n")
        found = await self._house.inbox.delete(entry.peer, entry.agent)
        return web.Response(status=204 if found else 404)


def _asked(request: web.Request) -> Asked:
    def all_of(name: str) -> tuple[str, ...]:
        return tuple(request.headers.getall(name, ()))

    return Asked(
        all_of("Host"),
        all_of("Origin"),
        all_of("X-Forwarded-For"),
        all_of("X-Forwarded-Proto"),
        request.remote,
    )


def _bound_buffer(request: web.Request) -> None:
    raw = request.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


class _WebDoor:
    """The gateway's token first, then the session's secret; a new secret for whoever has none."""

    def __init__(self, access: Access, guesses: Guesses, address: str) -> None:
        self._access = access
        self._guesses = guesses
        self._address = address
        self._messages = Allowance(MESSAGES_BURST, MESSAGES_SECONDS)

    def enter(self, hello: wire.Hello) -> Entry:
        self._check_token(hello.token)
        secret = hello.session
        if secret is None:
            secret = secrets.token_urlsafe(32)
        elif not isinstance(secret, str) or not _SECRET.match(secret):
            raise Refused("unauthorized", "This is no session's secret. Begin a new conversation.")
        if hello.agent is not None and hello.agent not in self._access.agents:
            raise Refused("not_allowed", f"The agent {hello.agent!r} is not open to web clients.")
        peer_id = PeerId(f"session:{hashlib.sha256(secret.encode()).hexdigest()[:16]}")
        agent = AgentId(hello.agent) if hello.agent else None
        return Entry(Peer(PROVIDER, peer_id), agent, secret=secret)

    def _check_token(self, given: str | None) -> None:
        if self._access.token is None:
            return
        if wait := self._guesses.wait(self._address):
            raise Refused("rate_limited", "Too many wrong tokens. Please wait a moment.", retry_after=wait)
        # Digests: a comparison of texts tells their lengths, and refuses what is not ASCII.
        digests = [
            hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            for text in (given or "", self._access.token)
        ]
        if not hmac.compare_digest(*digests):
            if given is not None:
                self._guesses.failed(self._address)
            raise Refused("unauthorized", "This gateway wants its access token (http.token).")

    def spend(self) -> float:
        return self._messages.spend()


class _Frames:
    """A `Carrier`: one frame, one text message."""

    def __init__(self, socket_: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self._socket = socket_
        self._transport = transport

    async def receive(self) -> str | bytes | None:
        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.BINARY:
            raise Refused(
                "frame_too_large" if len(message.data) > wire.MAX_CLIENT_FRAME else "bad_utf8", _BINARY
            )
        return None

    async def send(self, frames: list[bytes]) -> None:
        for frame in frames:
            await self._socket.send_frame(frame, WSMsgType.TEXT)

    async def close(self, code: int) -> None:
        try:
            if not self._socket.closed:
                async with asyncio.timeout(1.0):
                    # Without `drain`: what was cancelled in it before lets aiohttp's next one raise, too.
                    await self._socket.close(code=1000 if code == 1006 else code, drain=False)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            # A transport closes when all is sent: never, where the client is there and does not read.
            if self._transport is not None and self._transport.get_write_buffer_size():
                self._transport.abort()


_BINARY = "A frame is one JSON object in a text message, not in a binary one."
