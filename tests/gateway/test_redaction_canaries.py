"""Canary secrets through every error path of a real daemon at DEBUG: none may come out anywhere."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import CallTools, ErrorInStream, OpenAIServer, Raw, Reset, Say, Status
from tests.fakes.telegram_server import Html, Refuse, TelegramServer
from tests.fakes.webclient import WebClient
from tests.gateway.verbs.lunar import lunar

# Each has something in it that nothing else has, and some have what URLs, JSON and shells write differently.
HTTP = "canary-http/tok+en=1&x"
MODEL = 'canary-model-"key"/+%'
URL = "canaryUrlPass"
BOT = "123456:AAcanaryBotcanaryBotcanaryBotcanaryB"
DOWN = "canary-of-the-model-that-is-down"
MCP = "canary mcp env"
HEADER = "canary-mcp-header"
PROXY = "canaryProxyPass"
SECRETS = (HTTP, MODEL, URL, BOT.partition(":")[2], DOWN, MCP, HEADER, PROXY)
SAID = "kookaburra"  # what a person says: for the transcript, and for no log above DEBUG

MAIL = "import os, sys\nsys.stderr.write(os.environ['MAIL'] + '\\n')\nsys.exit('no: ' + os.environ['MAIL'])\n"
TOOLS = f"""
def leak() -> str:
    "Say what must not be said."
    return {MCP + " and " + HTTP!r}


def crash() -> str:
    "Break."
    raise RuntimeError({MODEL!r})
"""


def forms() -> Iterator[str]:
    """Every canary as it is, and in the forms in which it could be told."""
    for secret in SECRETS:
        yield from {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]}
    for pair in (f"u:{URL}", f"u:{PROXY}"):
        yield base64.b64encode(pair.encode()).decode()


def found_in(text: str) -> list[str]:
    return [secret for secret in forms() if secret in text]


@asynccontextmanager
async def repeating() -> AsyncIterator[str]:
    """A server that answers everything with 500, and with all that it was sent."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"error": [*request.headers.items()], "url": str(request.url)}, status=500)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def config(folder: Path, openai: OpenAIServer, telegram: TelegramServer, echo: str) -> dict[str, Any]:
    (folder / "tools.py").write_text(TOOLS)
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
        },
        "agents": {
            "main": {"tools": ["leak", "crash"]},
            "down": {"model": "down"},
            "echo": {"model": "echo"},
        },
        "http.agents": None,
        "tools": {
            "functions": {
                name: {"call": f"{folder}/tools.py:{name}", "timeout": "5s"} for name in ("leak", "crash")
            },
            "mcp": {
                "mail": {"command": [sys.executable, "-c", MAIL], "env": {"MAIL": {"env": "C_MCP"}}},
                "web": {"url": f"{echo}/mcp", "headers": {"X-Key": {"env": "C_HEADER"}}},
            },
        },
        "channels": {
            "telegram": {"bot_token": {"env": "C_BOT"}, "api_url": telegram.api_url, "allow": ["7"]}
        },
    }


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


class Visit:
    """One daemon, and everything that it ever told anybody."""

    def __init__(self, daemon: Daemon, openai: OpenAIServer, telegram: TelegramServer) -> None:
        self.daemon = daemon
        self.openai = openai
        self.telegram = telegram
        self.told: list[str] = []

    async def bodies(self) -> None:
        """What the HTTP port says, to those who bring secrets too."""
        paths = ("/healthz", "/readyz", "/metrics", "/", f"/nothing?token={HTTP}", f"/telegram/{BOT}")
        headers = {"Authorization": f"Bearer {HTTP}", "X-Telegram-Bot-Api-Secret-Token": BOT}
        async with ClientSession(f"http://127.0.0.1:{self.daemon.port}") as http:
            for path in paths:
                for method in ("GET", "POST"):
                    async with http.request(method, path, headers=headers, data=HTTP) as answer:
                        self.told.append(
                            f"{answer.headers} {(await answer.read()).decode('utf-8', 'replace')}"
                        )

    async def hellos(self) -> None:
        """Tokens that are nearly right, and frames that make no sense."""
        for token in (HTTP, HTTP + "x", HTTP[:-1], [HTTP], None):
            client = await WebClient.open(self.daemon.port, token=token)
            try:
                self.told.append(str(await client.receive()))
                await client.connection.send(json.dumps({"type": "no such", "token": HTTP}))
                self.told.append(str(await client.receive()))
            except (AssertionError, OSError, EOFError):
                pass  # closed: that is an answer too
            except Exception as error:
                self.told.append(str(error))
            await client.connection.close()

    async def model_faults(self) -> None:
        """Every way in which a server can repeat the key."""
        error = {"message": f"Incorrect API key provided: {MODEL}", "type": MODEL, "code": "x"}
        client = await self.daemon.client()
        for behaviour in (
            Status(401, {"error": error}),
            Status(400, {"error": error}),
            Status(404, f"<html>{MODEL}</html>"),
            Status(418, {"error": error}),
            ErrorInStream(1, Say("beginning"), error={"message": MODEL}),
            Raw([f"<html>{MODEL} {URL}</html>".encode()]),
            Reset(),
            CallTools([("leak", {}), ("crash", {})], then=Say("done")),
        ):
            self.openai.script(behaviour)
            self.told.append(str(await client.ask(SAID)))
            self.told.append(str(await self.daemon.get("/readyz")))
        self.told += map(str, client.frames)

    async def telegram_faults(self) -> None:
        """The Bot API repeats the URL that was asked for, which holds the token."""
        telegram = self.telegram
        for fault in (Refuse(401, f"Unauthorized: /bot{BOT}/getUpdates"), Refuse(500, BOT), Html(502)):
            before = len(self.daemon.log)
            telegram.fail("getUpdates", fault)
            telegram.fail("sendMessage", fault)
            telegram.user(7, "Hao").says(SAID)
            await self.daemon.until(lambda before=before: len(self.daemon.log) > before, "word of Telegram")

    async def commands(self) -> None:
        """What operators and people are told."""
        place = {"LUNAR_DATA_DIR": str(self.daemon.data_dir), **ENVIRONMENT}
        at = ("--config", str(self.daemon.folder / "config.yaml"))
        for verb in (
            ["status"],
            ["status", "--json"],
            ["config", "show"],
            ["check", "--offline"],
            ["reload"],
            ["usage"],
        ):
            ran = await lunar(*verb, *at, cwd=self.daemon.folder, **place)
            self.told.append(ran.out + ran.err)
        client = await self.daemon.client("other")
        await client.send("message", id="c1", text="/status")
        self.told.append(str(await client.until("notice")))

    def stored(self) -> str:
        files = [path for path in self.daemon.data_dir.rglob("*") if path.is_file()]
        return "".join(path.read_bytes().decode("utf-8", "replace") for path in files)


async def test_no_canary_comes_out(folder: Path) -> None:
    async with OpenAIServer() as openai, TelegramServer(BOT) as telegram, repeating() as echo:
        settings = config(folder, openai, telegram, echo)
        del settings["http.agents"]
        daemon = Daemon(folder / "d", config=settings, env=ENVIRONMENT, verbose=True)
        try:
            await daemon.start()
            visit = Visit(daemon, openai, telegram)
            await daemon.logged("channel ready", channel="telegram")
            await visit.model_faults()
            await visit.telegram_faults()
            await visit.hellos()
            await visit.bodies()
            await visit.commands()
            daemon.signal(signal.SIGHUP)
            await daemon.logged("configuration read")
            assert await daemon.stop() == 0
        finally:
            await daemon.close()
        log = "\n".join(map(json.dumps, daemon.log)) + "\n".join(daemon.noise)
        stored = visit.stored()
    assert openai.requests[0].headers["authorization"]  # the canaries were in use
    assert SAID in stored
    assert found_in(log) == []
    assert found_in("\n".join(visit.told)) == []
    assert found_in(stored) == []
    above = [entry for entry in daemon.log if entry["level"] != "debug" and SAID in json.dumps(entry)]
    assert not above
    assert "[secret]" in log  # they were there to be masked
    events = {entry["event"] for entry in daemon.log}
    assert {"no answer", "a tool failed", "turn"} <= events


BROKEN = (
    f"http: {{token: [{HTTP!r}]}}\n",
    f"http:\n  token: {json.dumps(HTTP)}\n\ttabs: yes\n",
    f"htp: {{token: {json.dumps(HTTP)}}}\n",
    f"model: {{api_key: {{a: {json.dumps(MODEL)}}}}}\n",
    f"model: {{base_url: 'ftp://u:{URL}@h/v1'}}\n",
    f"channels: {{telegram: {{bot_token: 12, webhook_url: 'ftp://u:{URL}@h'}}}}\n",
    f"tools: {{mcp: {{mail: {{command: [x], env: {{MAIL: [{MCP!r}]}}}}}}}}\n",
    f"models: {{a b: {{api_key: {json.dumps(MODEL)}}}}}\n",
    f"model: {{api_key: {json.dumps(MODEL)}\n",
)


@pytest.mark.parametrize("text", BROKEN)
async def test_no_complaint_about_the_configuration_repeats_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    file.chmod(0o600)
    ran = await asyncio.gather(
        *(lunar(*verb, cwd=tmp_path) for verb in (["run", "--verbose"], ["check"], ["config", "show"]))
    )
    assert ran[0].code == 78
    for one in ran:
        assert found_in(one.out + one.err) == []


async def test_a_secret_that_others_can_read_is_complained_about_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"http": {"token": HTTP}}))
    ran = await lunar("run", cwd=tmp_path)
    assert ran.code == 78
    assert "chmod 600" in ran.err
    assert found_in(ran.out + ran.err) == []
