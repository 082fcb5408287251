"""A Bot API server on loopback that keeps Telegram's rules, breaks them when told to, and remembers it all.

    async with TelegramServer(token="123456:AA…") as server:
        ann = server.user(7, "Ann")
        ann.says("Hello")                                   # an update, as Telegram would make it
        server.fail("sendMessage", AnswerLost(), times=2)   # the message arrives, the bot is not told
        await server.until(lambda: ann.chat.texts())        # what is on Ann's screen
        ... ann.chat.seen_texts(), ann.chat.messages, server.calls

A client's base URL is `server.api_url` + "/bot", its file URL `server.api_url` + "/file/bot". By itself:
`python -m tests.fakes.telegram_server --port 0 --token …` prints its `api_url` as its first line; see
`telegram_control` for what another process may ask of it.
"""

import argparse
import asyncio
import json
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from tests.fakes.telegram_checks import Refusal
from tests.fakes.telegram_control import control
from tests.fakes.telegram_faults import (
    Answer,
    AnswerLost,
    Garbage,
    Hang,
    Html,
    Refuse,
    Reset,
    Slow,
    TooMany,
    Trickle,
    Truncated,
    conflict,
    unauthorized,
)
from tests.fakes.telegram_limits import Rates
from tests.fakes.telegram_methods import METHODS
from tests.fakes.telegram_parameters import Parameters, read_parameters
from tests.fakes.telegram_people import Person, Place
from tests.fakes.telegram_world import World

__all__ = [
    "AnswerLost",
    "Call",
    "Garbage",
    "Hang",
    "Html",
    "Person",
    "Place",
    "Rates",
    "Refuse",
    "Reset",
    "Slow",
    "TelegramServer",
    "TooMany",
    "Trickle",
    "Truncated",
    "conflict",
    "unauthorized",
]

_PATH = re.compile(r"/(?P<file>file/)?bot(?P<token>[^/]*)/(?P<rest>.*)")
_TOKEN = re.compile(r"\d+:[A-Za-z0-9_-]+")


@dataclass
class Call:
    """One request to the API: what was asked, whether it was carried out, whether its answer was sent.

    `answered` says that the connection was open as far as a server can know, not that the bot has read it.
    """

    method: str  # as it was written; "file" for a download
    params: Parameters
    at: float
    client: Any = None  # the address that it came from: of the same connection the same
    committed: bool = False
    answered: bool = False
    status: int | None = None  # of the answer that was sent
    error: str | None = None  # why it was refused
    result: Any = None


class TelegramServer(World):
    """Also the world behind it: `user`, `group`, `channel`, `fail`, `flood`, `push_raw` are `World`'s."""

    def __init__(self, token: str = "123456:AAtest", *, port: int = 0, **world: Any) -> None:
        super().__init__(token, **world)
        self.host = "127.0.0.1"
        self.port = port
        self.api_url = ""  # set when it is entered
        self.calls: list[Call] = []
        self.release = asyncio.Event()  # lets everything go on that hangs
        self._changed = asyncio.Event()
        self.updates.on_change = self._tell

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # No handler_cancellation: as in the real server what was read is carried out, and a dead poll stays.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await self.start_listening()
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._runner.cleanup()  # first: what is still carried out may set a webhook
        finally:
            if self.updates.webhook:
                await self.updates.webhook.close()

    async def start_listening(self) -> None:
        self._site = web.TCPSite(self._runner, self.host, self.port, reuse_address=True)
        await self._site.start()
        self.port = self._runner.addresses[0][1]
        self.api_url = f"http://{self.host}:{self.port}"

    async def stop_listening(self) -> None:
        """As when the server is down: open connections end, new ones are refused. The queue is kept."""
        await self._site.stop()
        for connection in self.connections:
            connection.force_close()

    @property
    def connections(self) -> list[web.RequestHandler]:
        """Those that are open."""
        assert self._runner.server is not None
        return self._runner.server.connections

    async def until(self, condition: Callable[[], object], timeout: float = 5.0) -> None:
        """Waits for what comes with a call or an update, such as `lambda: len(chat.texts()) == 2`."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._changed.wait()

    def calls_of(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method.lower() == method.lower()]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/control/"):
            return await control(self, request)
        path = _PATH.fullmatch(request.path)
        if path is None or not _TOKEN.fullmatch(path["token"]):
            return _json(Refusal(404, "Not Found"))
        if path["token"] != self.token:
            return _json(Refusal(401, "Unauthorized"))
        if path["file"]:
            return await self._answer(request, Call("file", Parameters(path=path["rest"]), self.clock()))
        try:
            params = await read_parameters(request)
        except Refusal as refusal:
            return _json(refusal)
        return await self._answer(request, Call(path["rest"], params, self.clock()))

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        call.client = request.transport and request.transport.get_extra_info("peername")
        self.calls.append(call)
        self._tell()
        exchange = _Exchange(self, request, call)
        fault = self.faults.pick(call.method.lower(), call.params)
        if fault:
            await fault.happen(exchange)
        else:
            await exchange.send(await exchange.execute())
        self._tell()
        return exchange.response()


def _json(refusal: Refusal) -> web.Response:
    return web.json_response(refusal.envelope, status=refusal.code)


class _Exchange:
    def __init__(self, server: TelegramServer, request: web.Request, call: Call) -> None:
        self.release = server.release
        self._server = server
        self._request = request
        self._call = call
        self._response: web.StreamResponse | None = None

    async def execute(self) -> Answer:
        try:
            self._call.result = await self._carry_out()
        except Refusal as refusal:
            self._call.error = refusal.description
            return Answer(refusal.code, json.dumps(refusal.envelope).encode())
        self._call.committed = True
        self._server._tell()
        if isinstance(self._call.result, bytes):
            return Answer(200, self._call.result, "application/octet-stream")
        return Answer(200, json.dumps({"ok": True, "result": self._call.result}).encode())

    async def _carry_out(self) -> Any:
        if self._server.logged_out:
            raise Refusal(400, "Logged out")
        if self._call.method == "file":
            return self._server.files.download(self._call.params["path"])
        method = METHODS.get(self._call.method.lower())
        if method is None:
            raise Refusal(404, "Not Found: method not found")
        return await method(self._server, self._call.params)

    async def send(self, answer: Answer) -> None:
        await self.send_slowly(answer, max(len(answer.body), 1), 0)

    async def send_slowly(self, answer: Answer, size: int, pause: float) -> None:
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        self._response = web.StreamResponse(status=answer.status, headers=headers)
        try:
            await self._response.prepare(self._request)
            for at in range(0, len(answer.body), size):
                if at:
                    await asyncio.sleep(pause)
                await self._response.write(answer.body[at : at + size])
            await self._response.write_eof()
        except ConnectionError:
            return  # the client has left
        self._call.answered = True
        self._call.status = answer.status

    def drop(self, *, reset: bool) -> None:
        transport = self._request.transport
        if transport is None:
            return
        if reset:  # closing with a linger of 0 s sends RST instead of FIN
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()

    def response(self) -> web.StreamResponse:
        return self._response or web.Response()  # dropped on purpose: nobody is there to get it


async def _serve(options: argparse.Namespace) -> None:
    async with TelegramServer(options.token, port=options.port) as server:
        print(server.api_url, flush=True)
        await asyncio.Event().wait()


def _main() -> None:
    parser = argparse.ArgumentParser(description="A Bot API server for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default="123456:AAtest")
    try:
        asyncio.run(_serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    _main()
