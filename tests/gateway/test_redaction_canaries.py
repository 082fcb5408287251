"""Canary secrets through every error path of a real daemon at DEBUG: none may come out anywhere."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from channels.telegram.settings import Settings
from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import Refuse, TelegramServer
from tests.gateway.blabbing import CUE
from tests.gateway.canaries import (
    BOT,
    DOWN,
    ENVIRONMENT,
    HTTP,
    MCP,
    MODEL,
    NEW,
    SAID,
    URL,
    Visit,
    config,
    found_in,
    repeating,
)
from tests.gateway.verbs.lunar import lunar

# What must have been logged: the path was gone.
PATHS = {
    "a channel failed",
    "a chore broke",
    "a connection broke",
    "a function printed",
    "a reply was not delivered",
    "a tool failed",
    "a turn broke",
    "an MCP server failed",
    "an MCP server said",
    "asking again",
    "Error handling request from 127.0.0.1",
    "no answer",
    "no contact to Telegram",
    "the configuration is wrong, so nothing changes",
    "turn",
}
# The same of what nobody waits for: a thread, a clean-up, a callback, a task, a warning, libraries.
AROUND = ("a thread broke", "a clean-up broke", "Exception in callback", "Task exception was never retrieved")
FOREIGN = ("blabbing.py", "failed with", "GET /?")


async def test_no_canary_comes_out(folder: Path) -> None:
    async with OpenAIServer() as openai, TelegramServer(BOT) as telegram, repeating() as echo:
        settings = config(folder, openai, telegram, echo)
        module = "tests.gateway.blabbing"
        daemon = Daemon(folder / "d", config=settings, env=ENVIRONMENT, verbose=True, module=module)
        try:
            await daemon.start()
            visit = Visit(daemon, openai, telegram)
            await daemon.logged("channel ready", channel="telegram")
            await daemon.logged("MCP server ready", server="post")
            await visit.model_faults()
            await asyncio.gather(visit.other_models(), visit.telegram_faults())
            await visit.hellos()
            await visit.bodies()
            await visit.commands()
            await bad_reloads(visit)
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
    assert "[secret]" in log  # they were there to be masked
    above = [entry for entry in daemon.log if entry["level"] != "debug" and SAID in json.dumps(entry)]
    assert not above
    events = [str(entry["event"]) for entry in daemon.log]
    assert not PATHS - set(events)
    assert not [words for words in (*AROUND, *FOREIGN) if not any(words in event for event in events)]
    assert [told for told in visit.told if told.startswith("500 ")]  # the handler that broke


async def bad_reloads(visit: Visit) -> None:
    """Files with a secret that is new, and wrong, for the signal and the command; then one that breaks us."""
    file = visit.daemon.folder / "config.yaml"
    for text in (
        f"http:\n  token: {NEW!r}\n\ttabs: yes",
        f"model: {{api_key: {{env: {NEW!r}}}}}",
        f"tools: {{mcp: {{a: {{url: 'ftp://h/?api_key={NEW}'}}}}}}",
    ):
        file.write_text(text)
        file.chmod(0o600)
        before = len(visit.daemon.log)
        visit.daemon.signal(signal.SIGHUP)
        await visit.daemon.logged("the configuration is wrong, so nothing changes", since=before)
        await visit.command("reload")
        visit.told.append(str(await visit.daemon.get("/readyz")))
    file.write_text(f"# {CUE}")
    visit.daemon.signal(signal.SIGHUP)
    await visit.daemon.logged("a chore broke")
    await visit.command("reload")


async def test_a_start_that_breaks_tells_none(folder: Path) -> None:
    env = {**ENVIRONMENT, "C_URL": URL, "BREAK": "start"}
    settings = {"http": {"token": {"env": "C_HTTP"}}, "model": {"base_url": f"http://u:{URL}@127.0.0.1:9/v1"}}
    models = {
        name: {"api_key": {"env": f"C_{name.upper()}"}} for name in ("model", "down", "mcp", "header", "bot")
    }
    daemon = Daemon(
        folder / "d",
        config={**settings, "models": models},
        env=env,
        verbose=True,
        module="tests.gateway.blabbing",
    )
    await daemon.launch()
    assert await daemon.exit() == 1
    await daemon.close()
    [entry] = [entry for entry in daemon.log if entry["event"] == "the main thread broke"]
    assert "[secret]" in entry["exception"]
    assert found_in("\n".join(map(json.dumps, daemon.log)) + "\n".join(daemon.noise)) == []


async def test_what_telegram_shows_with_a_webhook_is_a_secret_too(folder: Path) -> None:
    secret = Settings(bot_token=BOT).webhook_secret
    async with TelegramServer(BOT) as telegram:
        told = {
            "bot_token": {"env": "C_BOT"},
            "api_url": telegram.api_url,
            "mode": "webhook",
            "webhook_url": "https://a.invalid",
        }
        daemon = Daemon(
            folder / "d", config={"channels": {"telegram": told}}, env={"C_BOT": BOT}, verbose=True
        )
        telegram.fail("setWebhook", Refuse(400, f"Bad Request: secret_token {secret}"))
        try:
            await daemon.start()
            why = (await daemon.logged("no contact to Telegram"))["why"]
        finally:
            await daemon.close()
    assert "_token [secret]" in why
    assert secret not in f"{daemon.log} {daemon.noise}"


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
    f"model: {{api_key: {{env: {json.dumps(MODEL)}}}}}\n",
    f"http: {{token: {{credential: {json.dumps(BOT)}}}}}\n",
    f"tools: {{mcp: {{a: {{url: 'ftp://h/?api_key={DOWN}'}}}}}}\n",
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
