"""Webchat: the page, the WebSocket, and deleting a conversation, on the gateway's HTTP port."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator
from typing import NamedTuple

import structlog
from aiohttp import web

from channels import connection, wire
from channels.connection import Entry, House
from channels.errors import Refused
from channels.webchat import assets
from channels.webchat.guard import Asked, Guard
from channels.webchat.heartbeat import Heartbeat
from channels.webchat.limits import MESSAGES_BURST, MESSAGES_SECONDS, Allowance, Guesses
from channels.webchat.upgrade import upgrade
from channels.webchat.websocket import WebSocket
from session.ids import AgentId, Peer, PeerId, Provider

log = structlog.get_logger(__name__)

PROVIDER = Provider("webchat")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}\Z")


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
        self._heartbeat = Heartbeat()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def attach(self, app: web.Application) -> None:
        """Add the page, `/ws` and `/api/session`."""
        app.router.add_get("/", self._page)
        app.router.add_get("/ws", self._websocket)
        app.router.add_delete("/api/session", self._delete)
        app.router.add_get("/{name}", self._page)
        app.cleanup_ctx.append(self._attend)
        app.on_shutdown.append(self._goodbye)

    def _refusal(self, request: web.Request) -> web.Response | None:
        """What every handler begins with."""
        refusal = self.access.guard.refusal(_asked(request))
        return web.Response(status=403, text=refusal + "\n", headers=assets.HEADERS) if refusal else None

    # -- the page --------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
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
        if refusal := self._refusal(request):
            return refusal
        client = upgrade(request)
        if isinstance(client, web.Response):
            return client
        task = asyncio.create_task(self._serve(client, self._door(request)))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        self._heartbeat.add(client)
        return web.Response()  # nobody reads it: as far as aiohttp knows, the client is gone

    def _door(self, request: web.Request) -> _WebDoor:
        return _WebDoor(self.access, self._guesses, self.access.guard.client(_asked(request)))

    async def _serve(self, client: WebSocket, door: _WebDoor) -> None:
        try:
            await connection.serve(client, door, self._house)
        except Exception:
            log.exception("a connection broke", channel="webchat")

    async def _attend(self, app: web.Application) -> AsyncIterator[None]:
        """Ping the clients for as long as the application runs."""
        pinging = asyncio.create_task(self._heartbeat.run())
        yield
        pinging.cancel()

    async def _goodbye(self, app: web.Application) -> None:
        clients = tuple(self._clients)
        for task in clients:
            task.cancel()
        if clients:
            await asyncio.wait(clients)

    # -- deleting a conversation -----------------------------------------------------------------

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """Remove a conversation for good: whoever has its secret may."""
        if refusal := self._refusal(request):
            return refusal
        try:
            secret = json.loads(await request.read())["session"]
            entry = self._door(request).enter(
                wire.Hello(protocol=1, session=secret, token=request.headers.get("X-Lunar-Token"))
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return web.Response(status=400, text='The body must be {"session": "<secret>"}.\n')
        except Refused as refused:
            status = 429 if refused.code == "rate_limited" else 401
            return web.Response(status=status, text=refused.public + "\n")
        try:
            found = await self._house.inbox.delete(entry.peer, entry.agent)
        except Refused as refused:
            return web.Response(status=503, text=refused.public + "\n")
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


class _WebDoor:
    """The gateway's token first, then the session's secret; a new secret for whoever has none."""

    __slots__ = ("_access", "_address", "_guesses", "_messages")

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
