"""The configuration read again by a running gateway: what holds at once, what waits, what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import ask, config_file, reload
from gateway.agent.model import Model
from gateway.agent.models import Models
from gateway.config import Config
from gateway.config import Model as ModelSettings
from gateway.config_file import Loaded
from gateway.config_problem import NOWHERE, written
from gateway.errors import ConfigError
from gateway.reload import LIVE, RESTART, Change, Reload, differences, joined
from gateway.systemd import Notifier
from tests.conftest import model
from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import CallTools, Hang, OpenAIServer, Say
from tests.fakes.telegram_server import TelegramServer
from tests.fakes.webclient import WebClient
from tests.gateway.environment import clear
from tests.gateway.verbs.lunar import Ran, lunar

KEY = "sk-a-new-key-0123456789abcdef"


class Running(Daemon):
    """A daemon whose file can be written anew; `reload` is the command, `hang_up` the signal."""

    def rewrite(self, config: dict[str, Any] | str) -> None:
        text = config if isinstance(config, str) else json.dumps(config)
        path = self.folder / "config.yaml"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)

    async def reload(self, *options: str) -> Ran:
        return await lunar("reload", *options, cwd=self.folder, **self._env | self._place())

    async def hang_up(self) -> dict[str, Any]:
        """SIGHUP; returns the log's last word on it."""
        before = len(self.log)
        self.signal(signal.SIGHUP)
        done = ("configuration read", "the configuration is wrong, so nothing changes")
        await self.until(lambda: any(e.get("event") in done for e in self.log[before:]), "the reload")
        return next(entry for entry in self.log[before:] if entry.get("event") in done)

    async def status(self) -> dict[str, Any]:
        return dict(await asyncio.to_thread(ask.control, self.socket, "status"))

    def _place(self) -> dict[str, str]:
        return {"LUNAR_DATA_DIR": str(self.data_dir)}


@pytest.fixture
async def running(folder: Path, openai: OpenAIServer) -> AsyncIterator[Running]:
    daemon = Running(folder / "0", config={}, env=model(openai))
    await daemon.start()
    yield daemon
    await daemon.close()


def prompts(openai: OpenAIServer) -> list[str]:
    """What the model was told first, request by request."""
    return [asked.body["messages"][0]["content"] for asked in openai.requests]


# -- what holds at once ----------------------------------------------------------------------------


async def test_the_next_turn_is_another_agents_and_the_running_one_ends_as_it_began(
    running: Running, openai: OpenAIServer
) -> None:
    tool = CallTools([("get_current_datetime", {})])
    openai.script(Hang(then=tool), Say("the old one"), Say("the new one"))
    client = await running.client("work")
    await client.say("first", "m1")
    await openai.until(lambda server: len(server.requests) == 1)
    running.rewrite({"agents": {"main": {"system_prompt": "You are new."}}})
    assert (await running.hang_up())["changed"] == ["agents.main.system_prompt"]
    changed = await running.logged("configuration changed", key="agents.main.system_prompt")
    assert changed["after"] == "You are new."
    openai.release.set()
    assert (await client.closed("m1"))["content"] == "the old one"
    assert (await client.ask("second"))["content"] == "the new one"
    assert ["You are new." in prompt for prompt in prompts(openai)] == [False, False, True]


async def test_another_model_and_its_key(running: Running, openai: OpenAIServer) -> None:
    del running._env["LUNAR_MODEL__API_KEY"]
    async with OpenAIServer() as other:
        models = {"big": {"base_url": other.base_url, "name": "big-1", "api_key": KEY}}
        running.rewrite({"models": models, "agents": {"main": {"model": "big"}}})
        ran = await running.reload()
        assert ran.code == 0, ran
        assert "agents.main.model: default → big" in ran.out
        assert "models.big.api_key: (not there) → [secret]" in ran.out
        client = await running.client("work")
        assert (await client.ask("Hello"))["content"] == "echo: Hello"
        assert other.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert (await running.status())["agents"] == {"main": "big-1"}
    assert KEY not in ran.out + json.dumps(running.log)


async def test_how_much_is_remembered_in_a_session_that_is_open(
    running: Running, openai: OpenAIServer
) -> None:
    client = await running.client("work")
    for number in range(3):
        await client.ask(f"number {number}")
    running.rewrite({"agents": {"main": {"history_turns": 2}}})
    await running.hang_up()
    await client.ask("how many?")
    said = [message["content"] for message in openai.requests[-1].body["messages"][1:]]
    assert said == ["number 2", "echo: number 2", "how many?"]


async def test_a_new_agent_and_one_that_is_gone(running: Running) -> None:
    running.rewrite({"agents": {"writer": {"system_prompt": "Write."}}})
    ran = await running.reload("--json")
    assert "agents.writer.system_prompt" in [change["key"] for change in json.loads(ran.out)["changed"]]
    writer = await running.client("work", agent="writer")
    assert (await writer.ask("Hello"))["content"] == "echo: Hello"
    running.rewrite({})
    ran = await running.reload()
    assert ran.out == "agents.writer waits for a restart\n"
    assert (await writer.ask("Still there?"))["content"] == "echo: Still there?"


async def test_who_may_come_in_by_the_web(running: Running) -> None:
    first = await WebClient.open(running.port)
    await first.until("welcome")
    running.rewrite({"http": {"token": "a-token-of-some-length", "allowed_origins": ["https://a.example"]}})
    await running.hang_up()
    stranger = await WebClient.open(running.port)
    assert (await stranger.until("error"))["code"] == "unauthorized"
    known = await WebClient.open(running.port, token="a-token-of-some-length", origin="https://a.example")
    await known.until("welcome")
    await first.send(type="message", id="m1", text="Hello")
    await first.until("done")  # a connection that is there stays
    assert "a-token-of-some-length" not in json.dumps(running.log)


async def test_who_may_talk_in_telegram(folder: Path, openai: OpenAIServer) -> None:
    token = "123456:AA" + "x" * 33
    async with TelegramServer(token) as telegram:
        hao, ann = telegram.user(7, "Hao"), telegram.user(8, "Ann")
        settings = {"bot_token": token, "api_url": telegram.api_url, "allow": [7]}
        daemon = Running(folder / "0", config={"channels": {"telegram": settings}}, env=model(openai))
        daemon.folder.mkdir()
        daemon.rewrite({})  # for its mode: others may not read it
        await daemon.start()
        hao.says("one")
        await telegram.until(lambda: hao.chat.texts() == ["echo: one"], timeout=15)
        daemon.rewrite({"channels": {"telegram": settings | {"allow": [8], "groups": "all"}}})
        assert (await daemon.hang_up())["needs_restart"] == ["channels.telegram.groups"]
        hao.says("two")
        ann.says("three")
        await telegram.until(lambda: ann.chat.texts() == ["echo: three"], timeout=15)
        assert "echo: two" not in hao.chat.texts()
        await daemon.close()


async def test_how_many_replies_are_written_at_once(running: Running, openai: OpenAIServer) -> None:
    running.rewrite({"queue": {"running": 1}})
    await running.hang_up()
    openai.script(Hang(), Say("second"))
    one, two = await running.client("one"), await running.client("two")
    await one.say("first")
    await openai.until(lambda server: len(server.requests) == 1)
    await two.say("second", "m2")
    running.rewrite({"queue": {"running": 2}})
    await running.hang_up()
    assert len(openai.requests) == 1, "a turn keeps what it began with, also its place in the queue"
    openai.release.set()
    await two.closed("m2")


# -- what waits ------------------------------------------------------------------------------------


async def test_what_needs_a_restart_is_named_until_then(running: Running) -> None:
    running.rewrite({"http": {"host": "127.0.0.2", "token": "a-token-of-some-length"}, "drain": "3s"})
    ran = await running.reload()
    assert ran.out.splitlines() == [
        "drain: 20s → 3s",
        "http.host waits for a restart",
        "http.token waits for a restart",
    ]
    assert (await running.status())["trouble"] == {"config": "waits for a restart: http.host, http.token"}
    assert (await running.get("/readyz"))[0] == 200
    running.rewrite({"drain": "3s"})
    assert (await running.reload()).out == "Nothing has changed.\n"
    assert (await running.status())["trouble"] == {}


def test_what_was_read_is_joined_with_what_runs() -> None:
    before = Config.model_validate({"data_dir": "/a", "agents": {"old": {}}, "http": {"port": 1}})
    read = Config.model_validate(
        {"data_dir": "/b", "agents": {"new": {}}, "http": {"port": 2, "agents": ["new"]}, "drain": "1m"}
    )
    now = joined(before, read)
    assert (str(now.data_dir), now.http.port, now.http.agents) == ("/a", 1, ("new",))
    assert set(now.agents) == {"main", "old", "new"}
    assert differences(before, before.model_copy(update={"drain": read.drain})) == [
        Change("drain", "20s", "1m")
    ]


def test_a_token_that_is_still_needed_is_not_given_up() -> None:
    """Otherwise a port that the network reaches would stand open until the restart."""
    before = Config.model_validate({"http": {"host": "0.0.0.0", "token": "long-enough-for-us"}})
    assert joined(before, Config()).http == before.http


def test_of_every_key_it_is_known_when_it_holds() -> None:
    for key in written():
        dotted = ".".join("models" if part == "model" else part for part in key)
        known = [name for name in (*LIVE, *RESTART) if f"{dotted}.".startswith(f"{name}.")]
        assert len(known) == 1, f"{dotted}: say in gateway/reload.py whether it can change live"


# -- what is refused -------------------------------------------------------------------------------

BAD = [
    ("http: {prot: 1}", "config.yaml:1: http.prot: unknown key"),
    ("http:\n\tport: 1", "config.yaml:2: not valid YAML"),
    ("agents:\n  main:\n    tools: [nope]", "config.yaml:3: agents.main.tools: there is no tool 'nope'"),
    (
        "channels:\n  cli: {operators: [nobody-here]}",
        "config.yaml:2: channels.cli.operators: this machine has",
    ),
]


async def test_a_bad_file_changes_nothing(running: Running) -> None:
    for text, problem in BAD:
        running.rewrite(text)
        refused = await running.hang_up()
        assert (refused["level"], refused["event"]) == (
            "error",
            "the configuration is wrong, so nothing changes",
        )
        assert problem in refused["problems"][0]
        client = await running.client("work")
        assert (await client.ask("Hello"))["content"] == "echo: Hello"
    running.rewrite({})
    assert (await running.hang_up())["changed"] == [], "what was there first was in force all the time"
    assert (await running.status())["trouble"] == {}
    assert await running.stop() == 0


async def test_a_bad_file_shows_everywhere(running: Running) -> None:
    text, problem = BAD[0]
    running.rewrite(text)
    ran = await running.reload()
    assert (ran.code, ran.out) == (os.EX_CONFIG, "")
    assert problem in ran.err
    assert "the last good configuration is in use" in ran.err
    why = (await running.status())["trouble"]["config"]
    assert why.startswith("not taken over, the last good one is in use: ")
    assert problem in why
    status, ready = await running.get("/readyz")
    assert (status, ready["why"]) == (200, {"config": why}), "people are served all the same"
    client = await running.client("work")
    assert "config" in await client.command("/status")
    ran = await lunar("status", cwd=running.folder, LUNAR_DATA_DIR=str(running.data_dir))
    assert ran.code == 0, "it is found although the file is wrong"
    assert problem in ran.out


async def test_a_tool_that_comes_with_the_restart(running: Running) -> None:
    (running.folder / "mine.py").write_text("def shout(text: str) -> str:\n    return text.upper()\n")
    functions = {"shout": {"call": "mine.py:shout"}}
    running.rewrite({"tools": {"functions": functions}, "agents": {"main": {"tools": ["shout"]}}})
    ran = await running.reload()
    assert ran.code == os.EX_CONFIG
    assert "agents.main.tools: " in ran.err
    assert "it may be right after a restart, for which waits: tools\n" in ran.err


async def test_a_file_that_is_gone_is_no_wish_for_the_defaults(running: Running) -> None:
    (running.folder / "config.yaml").unlink()
    refused = await running.hang_up()
    assert "cannot be read: No such file" in refused["problems"][0]


async def test_a_file_that_says_nothing_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reload, "_READING", 0.01)
    silent = [True]
    says = threading.Event()

    def read() -> Loaded:
        if silent.pop():
            says.wait()
        return Loaded(Config(), NOWHERE, {})

    again = Reload(Config(), read, lambda config: None, Notifier({})).again
    try:
        with pytest.raises(ConfigError, match="gives nothing"):
            await again()
        silent.append(False)
        monkeypatch.setattr(reload, "_READING", 20.0)
        assert await again() == ([], [])
    finally:
        says.set()


async def test_a_file_that_says_nothing_holds_no_stop_up(running: Running) -> None:
    path = running.folder / "config.yaml"
    path.unlink()
    os.mkfifo(path)
    running.signal(signal.SIGHUP)
    await asyncio.to_thread(ask.control, running.socket, "status")  # the signal was heard before
    assert await running.stop() == 0


async def test_only_operators_may_ask_for_it(running: Running) -> None:
    """Whoever else the socket lets in gets a refusal: see `channels.connection`."""
    client = await running.client("work")
    await client.send("control", id="c1", verb="reload", args={})
    assert (await client.until("result"))["data"] == {"problems": [], "changed": [], "waiting": []}


# -- a terminal ------------------------------------------------------------------------------------


async def test_a_terminal_that_was_closed_stops_it(folder: Path) -> None:
    """There SIGHUP is no wish to read anything."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        "import fcntl, os, sys, termios\n"
        "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'gateway', 'run'])",
        cwd=folder, env=Daemon(folder)._environment(), stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    loop = asyncio.get_running_loop()
    said = b""
    async with asyncio.timeout(20):
        while b"model ready" not in said:
            said += await loop.run_in_executor(None, os.read, ours, 4096)
        os.close(ours)
        assert await process.wait() == 0


# -- the service manager ---------------------------------------------------------------------------


async def test_systemd_is_told_of_the_beginning_and_the_end(folder: Path, openai: OpenAIServer) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.setblocking(False)
        env = model(openai) | {"NOTIFY_SOCKET": str(folder / "notify")}
        daemon = Running(folder / "0", config={}, env=env)
        await daemon.start()
        heard = await _heard(manager, "READY=1")
        daemon.rewrite("htp: {}")
        daemon.signal(signal.SIGHUP)
        heard = await _heard(manager, "READY=1")
        await daemon.close()
    began = next(place for place, said in enumerate(heard) if said.startswith("RELOADING=1\nMONOTONIC_USEC="))
    assert began < heard.index("READY=1"), "also where the file was wrong: it is over"


async def _heard(manager: socket.socket, until: str) -> list[str]:
    heard: list[str] = []
    async with asyncio.timeout(20):
        while until not in heard:
            heard.append((await asyncio.get_running_loop().sock_recv(manager, 4096)).decode())
    return heard


# -- models that are asked no more -----------------------------------------------------------------


async def test_a_model_whose_settings_changed_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with OpenAIServer() as server:
        settings = {"a": ModelSettings(base_url=server.base_url, name="x")}
        models = Models(settings)
        old = await models.get("a")
        models.renew(settings)
        assert await models.get("a") is old, "what has not changed is kept"
        models.renew({"a": ModelSettings(base_url=server.base_url, name="y")})
        new = await models.get("a")
        assert (old.label, new.label) == ("x", "y")
        pieces = [piece async for piece in old.ask([{"role": "user", "content": "Hello"}], [])]
        assert pieces, "a turn that was begun goes on"
        closed: list[str] = []
        really = Model.close

        async def close(model: Model) -> None:
            closed.append(model.label)
            await really(model)

        monkeypatch.setattr(Model, "close", close)
        await models.close()
        assert sorted(closed) == ["x", "y"]


# -- from a file -----------------------------------------------------------------------------------


def test_secrets_of_a_new_file_are_known_to_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clear(monkeypatch, tmp_path)
    (tmp_path / "config.yaml").write_text(f"model: {{api_key: {KEY}}}")
    (tmp_path / "config.yaml").chmod(0o600)
    loaded = config_file.settle(config_file.read(config_file.find(None)))
    (change,) = (c for c in differences(Config(), loaded.config) if c.key == "models.default.api_key")
    assert change == Change("models.default.api_key", None, "[secret]")
