"""What is asked of a model and of Telegram, and what their answers mean."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.__main__ import main
from tests.fakes.openai_server import Behaviour, Html200, OpenAIServer, Reset, Say, Status
from tests.fakes.telegram_faults import Answer
from tests.fakes.telegram_server import Html, Refuse, TelegramServer
from tests.gateway.environment import clear

KEY = "sk-0123456789abcdefghij"
BOT = "123456:AA" + "x" * 33
API = "LUNAR_CHANNELS__TELEGRAM__API_URL"
Found = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("LUNAR_HTTP__PORT", "0")
    monkeypatch.setenv("LUNAR_MODEL__NAME", "fake-1")
    monkeypatch.setenv("LUNAR_MODEL__BASE_URL", f"http://127.0.0.1:{closed_port()}/v1")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def checked(capsys: pytest.CaptureFixture[str], check: str) -> tuple[int, Found]:
    """The exit code, and what one of the checks has found; in a thread, for the servers are in this one."""
    code = await asyncio.to_thread(main, ["check", "--json"])
    captured = capsys.readouterr()
    assert captured.err == ""
    assert KEY not in captured.out
    assert BOT not in captured.out
    rows = [json.loads(line) for line in captured.out.splitlines()]
    return code, [row for row in rows if row["check"] == check]


# -- models ----------------------------------------------------------------------------------------


async def test_a_model_that_answers(
    openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNAR_MODEL__BASE_URL", openai.base_url)
    code, (found,) = await checked(capsys, "model")
    assert (code, found["level"]) == (0, "ok")
    assert found["text"].startswith("default: fake-1 answers, after ")
    assert len(openai.requests) == 1


@pytest.mark.parametrize(
    ("answer", "code", "level", "text", "fix"),
    [
        (
            Status(401),
            78,
            "problem",
            "refuses 'fake-1' (401)",
            "check OPENAI_API_KEY or the model's `api_key`",
        ),
        (Status(404), 78, "problem", "refuses 'fake-1' (404)", "check the model's `name` and `base_url`"),
        (Status(402), 69, "problem", "has no quota left", "billing"),
        (Status(429), 0, "warning", "too much to do", "try again in a minute"),
        (
            Status(503),
            69,
            "problem",
            "is not available (503)",
            "model.base_url right? Try: curl -i http://127",
        ),
        (Html200(), 69, "problem", "", "model.base_url right?"),
        (Reset(), 69, "problem", "cannot be reached", "is that server running"),
    ],
)
async def test_a_model_that_does_not(
    answer: Behaviour, code: int, level: str, text: str, fix: str,
    openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    openai.reply = lambda body: answer
    monkeypatch.setenv("LUNAR_MODEL__BASE_URL", openai.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    got, (found,) = await checked(capsys, "model")
    assert (got, found["level"]) == (code, level), found
    assert text in found["text"]
    assert fix in found["fix"]
    assert len(openai.requests) == 1, "a check does not insist"


async def test_no_server_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, (found,) = await checked(capsys, "model")
    assert (code, found["level"]) == (69, "problem")
    assert "cannot be reached" in found["text"]
    assert "is that server running" in found["fix"]


async def test_no_name_and_no_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNAR_MODEL__NAME", "auto")
    code, (found,) = await checked(capsys, "model")
    assert code == 69
    assert "does not answer /v1/models" in found["text"]
    assert "write the model's name into model.name" in found["fix"]


async def test_the_demo_is_no_ai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("LUNAR_MODEL__NAME")
    monkeypatch.delenv("LUNAR_MODEL__BASE_URL")

    async def nobody() -> None:
        return

    monkeypatch.setattr("gateway.agent.discover.discover", nobody)
    code, (found,) = await checked(capsys, "model")
    assert (code, found["level"]) == (0, "warning")
    assert "it is no AI" in found["text"]
    assert "OPENAI_API_KEY" in found["fix"]


async def test_only_models_that_somebody_uses_are_asked(
    openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    openai.reply = lambda body: Say(body["model"])
    models = {name: {"base_url": openai.base_url, "name": name} for name in ("default", "other", "unused")}
    agents = {"main": {"fallback": ["other"]}}
    monkeypatch.setenv("LUNAR_MODELS", json.dumps(models))
    monkeypatch.setenv("LUNAR_AGENTS", json.dumps(agents))
    monkeypatch.delenv("LUNAR_MODEL__NAME")
    monkeypatch.delenv("LUNAR_MODEL__BASE_URL")
    _, found = await checked(capsys, "model")
    assert [row["text"].split()[0] for row in found] == ["default:", "other:"]


# -- telegram --------------------------------------------------------------------------------------


@pytest.fixture
async def telegram(monkeypatch: pytest.MonkeyPatch, openai: OpenAIServer) -> AsyncIterator[TelegramServer]:
    monkeypatch.setenv("LUNAR_MODEL__BASE_URL", openai.base_url)
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", BOT)
    async with TelegramServer(BOT) as server:
        monkeypatch.setenv(API, server.api_url)
        yield server


async def test_a_token_that_telegram_knows(
    telegram: TelegramServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (found,) = await checked(capsys, "telegram")
    assert (code, found["level"]) == (0, "ok")
    assert found["text"].startswith("the bot is @")
    assert [call.method for call in telegram.calls] == ["getMe"], "it must not disturb the running gateway"


async def test_one_that_it_does_not_know(
    telegram: TelegramServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", BOT[:-1] + "y")
    code, (found,) = await checked(capsys, "telegram")
    assert code == 78
    assert "Telegram knows no bot with this token (401)" in found["text"]
    assert "@BotFather" in found["fix"]


@pytest.mark.parametrize("fault", [Html(502), Refuse(500, "Internal Server Error")])
async def test_what_is_no_bot_api(
    fault: Any, telegram: TelegramServer, capsys: pytest.CaptureFixture[str]
) -> None:
    telegram.fail("getMe", fault)
    code, (found,) = await checked(capsys, "telegram")
    assert code == 69
    assert "is no Bot API server" in found["text"]
    assert "without /bot" in found["fix"]


async def test_no_way_to_telegram(
    telegram: TelegramServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(API, f"http://127.0.0.1:{closed_port()}")
    code, (found,) = await checked(capsys, "telegram")
    assert code == 69
    assert "cannot be reached: Connection refused" in found["text"]
    assert "HTTPS_PROXY" in found["fix"]


class PrivacyMode:
    """The answer for a bot that hears only what is meant for it."""

    async def happen(self, exchange: Any) -> None:
        me = {"id": 123456, "is_bot": True, "username": "shy_bot", "can_read_all_group_messages": False}
        await exchange.send(Answer(200, json.dumps({"ok": True, "result": me}).encode()))


async def test_groups_that_the_bot_cannot_hear(
    telegram: TelegramServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    telegram.fail("getMe", PrivacyMode())
    monkeypatch.setenv("LUNAR_CHANNELS__TELEGRAM__GROUPS", "all")
    code, found = await checked(capsys, "telegram")
    assert (code, [row["level"] for row in found]) == (0, ["ok", "warning"])
    assert "/setprivacy" in found[1]["fix"]


# -- the clock -------------------------------------------------------------------------------------


@asynccontextmanager
async def dated(date: str) -> AsyncIterator[str]:
    """A server that believes it to be another time."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(headers={"Date": date})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("date", "level", "text"),
    [
        ("Wed, 01 Jan 2025 00:00:00 GMT", "problem", "s ahead of that of 127.0.0.1"),
        ("Tue, 01 Jan 2126 00:00:00 GMT", "problem", "s behind that of 127.0.0.1"),
        ("nonsense", "ok", "compared with nobody's"),
    ],
)
async def test_the_clocks_of_others(
    date: str, level: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with dated(date) as address:
        monkeypatch.setenv("LUNAR_MODEL__BASE_URL", f"{address}/v1")
        _, (found,) = await checked(capsys, "clock")
    assert found["level"] == level
    assert text in found["text"]
    assert "timedatectl" in found["fix"] or level == "ok"


async def test_a_clock_that_is_right(
    openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNAR_MODEL__BASE_URL", openai.base_url)
    _, (found,) = await checked(capsys, "clock")
    assert (found["level"], found["text"]) == ("ok", "as at 127.0.0.1")
