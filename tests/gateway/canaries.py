"""Secrets of which each is found again wherever it comes out, and a visit that tries to get them out."""

from __future__ import annotations

import base64
import html
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from aiohttp import ClientSession, web

from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import (
    CallTools,
    ErrorInStream,
    Hang,
    HtmlInStream,
    OpenAIServer,
    Raw,
    Reset,
    Say,
    Status,
)
from tests.fakes.telegram_server import Garbage, Html, Refuse, TelegramServer
from tests.fakes.telegram_server import Reset as ResetTelegram
from tests.fakes.webclient import WebClient
from tests.gateway.blabbing import CUE
from tests.gateway.verbs.lunar import lunar

# Each has something in it that nothing else has, and some have what URLs, JSON and HTML write differently.
HTTP = "canary-http/tok+en=1&x"
MODEL = 'canary-model-"key"/+%'
URL = "canaryUrlPass"
BOT = "123456:AAcanaryBotcanaryBotcanaryBotcanaryB"
DOWN = "canary-of-the-model-that-is-down"
MCP = "canary mcp env of a server"
HEADER = "canary-mcp-header"
PROXY = "canaryProxyPass"
NEW = "fresh-canary/of a broken+file"  # of a configuration that is refused: nobody was ever told of it
SECRETS = (HTTP, MODEL, URL, BOT.partition(":")[2], DOWN, MCP, HEADER, PROXY, NEW)
SAID = "kookaburra"  # what a person says: for the transcript, and for no log above DEBUG
_TELLING = 10  # characters: so much of one, and it has come out

MAIL = "import os, sys\nsys.stderr.write(os.environ['MAIL'] + '\\n')\nsys.exit('no: ' + os.environ['MAIL'])\n"
POST = """
import os, sys, time
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

KEY = os.environ["KEY"]
server = MCPServer("post")

@server.tool()
def fail() -> str:
    "Say the key so often that whatever is cut is cut within it, in two parts, and fail with it."
    for part in (KEY[:12], KEY[12:] + "\\n", "cut: " + (KEY + "~") * 200 + "\\n"):
        sys.stderr.write(part)
        sys.stderr.flush()
        time.sleep(0.05)  # so that they come apart
    raise RuntimeError((KEY + "~") * 25)

@server.tool()
def refuse() -> str:
    "Say no, and why, in more words than are logged."
    raise ToolError("because " + (KEY + "~") * 25)

@server.tool()
def tell() -> str:
    "Answer with the key."
    return (KEY + "~") * 5000

server.run("stdio")
"""
TOOLS = f"""
import sys

def leak() -> str:
    "Say what must not be said."
    return {HTTP + " and " + HTTP!r} + {MCP + "~"!r} * 5000


def crash() -> str:
    "Break."
    print({MCP + "~"!r} * 500, file=sys.stderr)
    raise RuntimeError({MODEL!r})
"""
ENVIRONMENT = {
    "C_HTTP": HTTP,
    "C_MODEL": MODEL,
    "C_DOWN": DOWN,
    "C_MCP": MCP,
    "C_HEADER": HEADER,
    "C_BOT": BOT,
    "HTTP_PROXY": f"http://u:{PROXY}@127.0.0.1:9",
    "HTTPS_PROXY": f"http://u:{PROXY}@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}


def forms() -> Iterator[str]:
    """Every canary as it is, and in the forms in which it could be told."""
    for secret in SECRETS:
        written = json.dumps(secret)[1:-1]
        yield from {secret, written, written.replace("/", "\\/"), repr(secret)[1:-1], html.escape(secret)}
        yield from {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    for pair in (f"u:{URL}", f"u:{PROXY}"):
        yield base64.b64encode(pair.encode()).decode()


PARTS = {form[at : at + _TELLING].lower() for form in forms() for at in range(len(form) - _TELLING + 1)}


def found_in(text: str) -> list[str]:
    """Which canaries, or telling parts of them, are in a text, each with what stands around it."""
    small = text.lower()
    return [small[max(0, small.index(part) - 200) :][:400] for part in PARTS if part in small]


@asynccontextmanager
async def repeating(listener: socket.socket | None = None) -> AsyncIterator[str]:
    """A server, as good as a model's and as Telegram's, that answers 500 with all that it was sent."""

    async def answer(request: web.Request) -> web.Response:
        error = f"{request.url} {[*request.headers.items()]} {await request.text()}"
        told = {"error": error, "ok": False, "error_code": 500, "description": error}
        return web.json_response(told, status=500, headers={"X-Told": request.headers.get("X-Key", "")})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener or socket.create_server(("127.0.0.1", 0))).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def config(folder: Path, openai: OpenAIServer, telegram: TelegramServer, echo: str) -> dict[str, Any]:
    (folder / "tools.py").write_text(TOOLS)
    (folder / "post.py").write_text(POST)
    others = ("down", "echo", "silent")
    telegram_settings = {"bot_token": {"env": "C_BOT"}, "api_url": telegram.api_url, "allow": ["7"]}
    return {
        "http": {"token": {"env": "C_HTTP"}},
        "models": {
            "default": {
                "base_url": openai.base_url.replace("://", f"://u:{URL}@"),
                "name": "fake-1",
                "api_key": {"env": "C_MODEL"},
            },
            "down": {"base_url": "http://model.invalid/v1", "name": "down", "api_key": {"env": "C_DOWN"}},
            "echo": {"base_url": f"{echo}/v1", "name": "echo", "api_key": {"env": "C_DOWN"}},
            "silent": {"base_url": openai.base_url, "name": "silent", "api_key": {"env": "C_DOWN"}},
        },
        "agents": {
            "main": {"tools": ["leak", "crash", "post__*"]},
            **{name: {"model": name} for name in others},
        },
        "routes": [{"provider": "cli", "peer": name, "agent": name} for name in others],
        "tools": {
            "functions": {
                name: {"call": f"{folder}/tools.py:{name}", "timeout": "5s"} for name in ("leak", "crash")
            },
            "mcp": {
                "mail": {"command": [sys.executable, "-c", MAIL], "env": {"MAIL": {"env": "C_MCP"}}},
                "post": {
                    "command": [sys.executable, str(folder / "post.py")],
                    "env": {"KEY": {"env": "C_MCP"}},
                },
                "web": {"url": f"{echo}/mcp", "headers": {"X-Key": {"env": "C_HEADER"}}},
            },
        },
        "channels": {"telegram": telegram_settings},
    }


# -- the visit -------------------------------------------------------------------------------------

_WRONG_KEY = {"message": f"Incorrect API key provided: {MODEL}", "type": MODEL, "code": "x"}
_LATER = {"Retry-After": "3600", "X-Key": MODEL}  # too long to be waited for
_MUCH = f"{MODEL}~" * 100  # wherever it is cut, it is cut within a key
MODEL_FAULTS = (
    Status(401, {"error": _WRONG_KEY}),
    Status(400, {"error": _WRONG_KEY}),
    Status(404, f"<html>{MODEL}</html>"),
    Status(404, f"<html>{html.escape(MODEL)}</html>"),
    Status(418, {"error": _WRONG_KEY}),
    Status(429, {"error": _WRONG_KEY}, _LATER),
    Status(500, {"error": _WRONG_KEY}, _LATER),
    Status(500, json.dumps({"error": MODEL}).replace("/", "\\/"), _LATER),
    Status(503, _MUCH, _LATER),
    Status(429, {"error": _WRONG_KEY}),  # from here on it is asked again
    Status(500, {"error": _WRONG_KEY}),
    Status(503, f"<html>{MODEL}</html>"),
    ErrorInStream(1, Say("beginning"), error={"message": MODEL}),
    Raw([f"<html>{MODEL} {URL}</html>".encode()]),
    Raw([f"data: {_MUCH}\n\n".encode()]),
    Raw([f"{_MUCH}\n\n".encode()]),
    HtmlInStream(2),
    Reset(),
    CallTools([("leak", {}), ("crash", {})], then=Say("done")),
    CallTools([("post__fail", {})], then=Say("done")),
    CallTools([("post__tell", {}), ("post__refuse", {})], then=Say("done")),
)


class Visit:
    """One daemon, and everything that it ever told anybody."""

    def __init__(self, daemon: Daemon, openai: OpenAIServer, telegram: TelegramServer) -> None:
        self.daemon = daemon
        self.openai = openai
        self.telegram = telegram
        self.told: list[str] = []

    async def bodies(self) -> None:
        """What the HTTP port says, to those who bring secrets too, and where a handler breaks."""
        paths = ("/healthz", "/readyz", "/metrics", "/", f"/nothing?token={HTTP}", f"/telegram/{BOT}")
        headers = {"Authorization": f"Bearer {HTTP}", "X-Telegram-Bot-Api-Secret-Token": BOT}
        async with ClientSession(f"http://127.0.0.1:{self.daemon.port}") as http:
            for path in (*paths, f"/healthz?{CUE}&token={HTTP}", f"/readyz?{CUE}"):
                for method in ("GET", "POST"):
                    async with http.request(method, path, headers=headers, data=HTTP) as answer:
                        body = (await answer.read()).decode("utf-8", "replace")
                        self.told.append(f"{answer.status} {answer.headers} {body}")
        await self.daemon.logged("Error handling request from 127.0.0.1", level="error")

    async def hellos(self) -> None:
        """Tokens that are nearly right, frames that make no sense, and one that breaks the connection."""
        for token in (HTTP, HTTP + "x", HTTP[:-1], [HTTP], None):
            client = await WebClient.open(self.daemon.port, token=token)
            try:
                self.told.append(str(await client.receive()))
                await client.connection.send(json.dumps({"type": "no such", "token": HTTP}))
                self.told.append(str(await client.receive()))
                await client.connection.send(json.dumps({"type": "message", "id": CUE, "text": HTTP}))
                self.told.append(str(await client.receive()))
            except (AssertionError, OSError, EOFError):
                pass  # closed: that is an answer too
            except Exception as error:
                self.told.append(str(error))
            await client.connection.close()
        await self.daemon.logged("a connection broke", channel="webchat")

    async def model_faults(self) -> None:
        """Every way in which a server can repeat the key, and a turn that breaks."""
        client = await self.daemon.client()
        for behaviour in MODEL_FAULTS:
            self.openai.script(behaviour)
            await client.ask(SAID)
            self.told.append(str(await self.daemon.get("/readyz")))
        broken = await client.ask(f"{SAID} {CUE}")
        assert "something went wrong inside the gateway" in broken["content"]
        self.told += map(str, client.frames)

    async def other_models(self) -> None:
        """One behind a proxy that is down, one that repeats all it is sent, one that says nothing in time."""
        self.openai.reply = lambda body: Hang() if body["model"] == "silent" else Say("Well.")
        for name in ("down", "echo", "silent"):
            client = await self.daemon.client(name)
            assert (await client.ask(SAID))["name"] == "turn_failed"
            self.told += [*map(str, client.frames), str(await self.daemon.get("/readyz"))]
        self.openai.release.set()

    async def telegram_faults(self) -> None:
        """The Bot API repeats the URL that was asked for, which holds the token."""
        telegram = self.telegram
        for status in (500, 409, 429, 403, 400, 401):
            telegram.fail("getUpdates", Refuse(status, f"Oh: {telegram.api_url}/bot{BOT}/getUpdates {BOT}"))
        for fault in (Html(502), Garbage(f'{{"{BOT}'.encode()), ResetTelegram()):
            telegram.fail("getUpdates", fault)
        telegram.fail("sendMessage", Refuse(500, f"/bot{BOT}/sendMessage"))
        telegram.fail("sendMessage", Refuse(401, f"/bot{BOT}/sendMessage"))
        telegram.fail(
            "sendMessage", Refuse(400, f"Bad Request: {telegram.api_url}/bot{BOT}/sendMessage {BOT}")
        )
        person = telegram.user(7, "Hao")
        person.says(SAID)
        await self.daemon.logged("a reply was not delivered")
        person.says(SAID)
        await telegram.until(lambda: not [one for one in telegram.faults.planned if one.left], 20)

    async def commands(self) -> None:
        """What operators and people are told."""
        for verb in (
            ["status"],
            ["status", "--json"],
            ["config", "show"],
            ["check", "--offline"],
            ["reload"],
            ["usage"],
        ):
            await self.command(*verb)
        client = await self.daemon.client("other")
        await client.send("message", id="c1", text="/status")
        self.told.append(str(await client.until("notice")))

    async def command(self, *verb: str) -> None:
        place = {"LUNAR_DATA_DIR": str(self.daemon.data_dir), **ENVIRONMENT}
        ran = await lunar(
            *verb, "--config", str(self.daemon.folder / "config.yaml"), cwd=self.daemon.folder, **place
        )
        self.told.append(ran.out + ran.err)

    def stored(self) -> str:
        """Everything that is on the disk."""
        files = [path for path in self.daemon.data_dir.rglob("*") if path.is_file()]
        return "".join(path.read_bytes().decode("utf-8", "replace") for path in files)
