from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest

from channels.cli.client import Target
from gateway.errors import ConfigError
from gateway.verbs import chat
from tests.conftest import Daemons
from tests.fakes.openai_server import OpenAIServer
from tests.gateway.environment import clear
from tests.gateway.verbs.lunar import lunar


async def test_one_question_and_its_answer(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as daemon:
        there = partial(lunar, "chat", cwd=daemon.folder, LUNAR_DATA_DIR=str(daemon.data_dir))
        assert await there("hello") == (0, "echo: hello\n", "")
        assert await there(stdin=b"from a pipe\n") == (0, "echo: from a pipe\n", "")
        assert [event["content"] for event in daemon.events("agent:main:cli:local") if "id" in event] == [
            "hello",
            "from a pipe",
        ]


async def test_it_needs_no_configuration_to_find_a_named_socket(
    daemons: Daemons, openai: OpenAIServer
) -> None:
    async with daemons(server=openai) as daemon:
        ran = await lunar(
            "chat", "--socket", str(daemon.socket), "--session", "work", "--json", "hello",
            cwd=daemon.folder, LUNAR_NONSENSE="1",
        )  # fmt: skip
        assert (ran.code, ran.err) == (0, "")
        frames = [json.loads(line) for line in ran.out.splitlines()]
        assert frames[0]["type"] == "welcome"
        assert frames[0]["session_id"] == "agent:main:cli:work"
        (answer,) = [frame["event"] for frame in frames if frame.get("event", {}).get("answers")]
        assert answer["content"] == "echo: hello"


async def test_where_none_is_running(folder: Path) -> None:
    ran = await lunar("chat", "hello", cwd=folder)
    assert (ran.code, ran.out) == (os.EX_UNAVAILABLE, "")
    assert f"{folder}/data/lunar.sock" in ran.err
    assert "Traceback" not in ran.err


async def test_a_wrong_configuration(folder: Path) -> None:
    ran = await lunar("chat", "hello", cwd=folder, LUNAR_HTTP__PORT="x")
    assert ran == (
        os.EX_CONFIG,
        "",
        "lunar: $LUNAR_HTTP__PORT (http.port): must be a whole number, not 'x'\n",
    )


def test_which_gateway_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)
    assert chat.target(None, None, None, None) == Target(socket=tmp_path / "data" / "lunar.sock")
    assert chat.target(None, "/s", None, None) == Target(socket=Path("/s"))
    assert chat.target(None, None, "ws://h/ws", None) == Target(socket=None, url="ws://h/ws")
    monkeypatch.setenv("LUNAR_HTTP_TOKEN", "from-the-environment")
    assert chat.target(None, None, "ws://h/ws", None).token == "from-the-environment"
    (tmp_path / "token").write_text("from-a-file\n")
    assert chat.target(None, None, "ws://h/ws", "token").token == "from-a-file"
    with pytest.raises(ConfigError, match="--token-file nope: cannot be read"):
        chat.target(None, None, "ws://h/ws", "nope")


async def test_it_remembers_through_a_stop_and_a_kill(daemons: Daemons) -> None:
    daemon = await daemons().start()
    there = partial(lunar, "chat", cwd=daemon.folder, LUNAR_DATA_DIR=str(daemon.data_dir))
    assert (await there("My favorite color is blue")).code == 0
    await daemon.stop()
    await daemon.start()
    assert await there("What's my favorite color?") == (0, "Your favorite color is blue!\n", "")
    await daemon.kill()
    await daemon.start()
    assert await there("What's my favorite color?") == (0, "Your favorite color is blue!\n", "")


async def test_a_gateway_elsewhere_with_its_token(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai, LUNAR_HTTP_TOKEN="a-good-long-token") as daemon:
        file = daemon.folder / "token"
        file.write_text("a-good-long-token\n")
        url = f"ws://127.0.0.1:{daemon.port}/ws"
        there = partial(lunar, "chat", "--url", url, cwd=daemon.folder, XDG_STATE_HOME=str(daemon.folder))
        assert await there("--token-file", str(file), "hello") == (0, "echo: hello\n", "")
        assert await there("--token-file", str(file), "again") == (0, "echo: again\n", "")
        (secret,) = [path for path in (daemon.folder / "lunar").rglob("*") if path.is_file()]
        assert secret.stat().st_mode & 0o777 == 0o600
        (session,) = (daemon.data_dir / "sessions").glob("*webchat*.jsonl")
        assert session.read_text().count('"role":"user"') == 2
        refused = await there("hello")
        assert refused.code == os.EX_NOPERM
        assert "token" in refused.err
