from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from gateway.__main__ import main
from gateway.errors import NotRunning
from tests.conftest import Daemons
from tests.gateway.environment import clear


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


async def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = await asyncio.to_thread(main, ["status", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


async def test_a_gateway_that_is_well(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with daemons() as daemon:
        monkeypatch.setenv("LUNAR_DATA_DIR", str(daemon.data_dir))
        await daemon.logged("model ready")
        code, out, err = await ran(capsys)
        assert (code, err) == (0, "")
        assert "\x1b" not in out
        rows = {line[:8].strip(): line[8:].strip() for line in out.splitlines()}
        assert rows["Gateway"] == f"ready, version {__version__}"
        assert daemon.process is not None
        assert rows["Process"].startswith(f"{daemon.process.pid}, up ")
        assert rows["Models"] == "main: demo (demo)"
        assert rows["Turns"] == "0 running, 0 waiting; 0 messages queued"
        assert rows["Sessions"] == "0 today (UTC), 1 in memory"  # it is asked from within one
        assert rows["Disk"].endswith("free")
        assert rows["Channels"] == f"http: ready, 0 clients, http://127.0.0.1:{daemon.port}/"
        assert "demo model" in rows[""]

        code, out, err = await ran(capsys, "--json")
        data = json.loads(out)
        assert (code, err) == (0, "")
        assert data["ready"] is True
        assert data["trouble"] == {}
        assert data["pid"] == daemon.process.pid


async def test_a_gateway_in_trouble(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing listens on port 1, and `auto` has to ask there for a model's name.
    async with daemons(LUNAR_MODEL__BASE_URL="http://127.0.0.1:1/v1") as daemon:
        monkeypatch.setenv("LUNAR_DATA_DIR", str(daemon.data_dir))
        await daemon.logged("a model cannot be set up")
        code, out, _ = await ran(capsys)
        assert code == 1
        assert out.startswith("Gateway")
        assert "in trouble" in out
        assert "! model default" in out
        assert "a model cannot be set up (used_as default" in out  # among the last errors
        assert json.loads((await ran(capsys, "--json"))[1])["ready"] is False


async def test_where_none_is_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = await ran(capsys)
    assert (code, out) == (os.EX_UNAVAILABLE, "")
    assert err == (
        f"lunar: No gateway is running here ({tmp_path}/data/lunar.sock). Start it with: lunar run\n"
    )


async def test_a_wrong_configuration_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("http: {port: x}\nqueue: {mode: y}\n")
    code, out, err = await ran(capsys)
    assert (code, out) == (os.EX_CONFIG, "")
    assert [line.split(": ")[:3] for line in err.splitlines()] == [
        ["lunar", "config.yaml:1", "http.port"],
        ["lunar", "config.yaml:2", "queue.mode"],
    ]


# -- on a terminal -------------------------------------------------------------------------------

DATA: dict[str, Any] = {
    "version": "1.2.3",
    "ready": True,
    "pid": 7,
    "uptime": "2 h 5 min",
    "memory_bytes": 80 << 20,
    "http": "http://127.0.0.1:8420/",
    "channels": {"cli": "ready", "http": "ready", "telegram": "ready"},
    "connections": {"cli": 1, "http": 2},
    "trouble": {},
    "agents": {"main": "large-1"},
    "demo": False,
    "demo_notice": "",
    "turns_running": 1,
    "turns_waiting": 0,
    "messages_waiting": 3,
    "sessions_today": 12,
    "sessions_in_memory": 4,
    "tools": {"files": "ready, 3 tools"},
    "disk": {"free_bytes": 50 << 30, "total_bytes": 100 << 30},
    "telegram": {
        "delivered": 8,
        "waiting": 1,
        "failed": 0,
        "dead_letters": 0,
        "poll_age_seconds": 3.2,
        "last_failure": None,
    },
    "last_errors": [],
}
TROUBLE = {
    **DATA,
    "ready": False,
    "channels": {**DATA["channels"], "telegram": "Unauthorized"},
    "trouble": {"channel telegram": "Unauthorized", "model default": "401: \x1b]0;title\x07 no such key"},
    "disk": {"free_bytes": 1 << 30, "total_bytes": 100 << 30},
    "telegram": {**DATA["telegram"], "failed": 2, "dead_letters": 1, "last_failure": "Forbidden"},
    "last_errors": [
        {
            "time": "2026-03-01T12:00:00.000Z",
            "level": "error",
            "event": "a channel failed",
            "why": "line\nbreak",
            "channel": "telegram",
            "session": "agent:main:cli:local",
        }
    ],
}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.verbs.status._colourful", lambda: True)
    monkeypatch.setenv("COLUMNS", "64")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


Capture = pytest.CaptureFixture[str]


def asked(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any] | BaseException) -> None:
    left = list(answers)

    def control(socket: Path, verb: str) -> dict[str, Any]:
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr("gateway.ask.control", control)


def bare(text: str) -> list[str]:
    """What can be read of it."""
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text).splitlines()


def test_a_table_on_a_terminal(terminal: None, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, DATA)
    assert main(["status"]) == 0
    assert bare(capsys.readouterr().out) == [
        "",
        "  ● Lunar is ready 1.2.3",
        "",
        "  Channels  ● cli: ready, 1 client",
        "            ● http: ready, 2 clients, http://127.0.0.1:8420/",
        "            ● telegram: ready, heard of 3 s ago, 8 delivered, …",
        "",
        "  Models    main: large-1",
        "  Turns     1 running, 0 waiting; 3 messages queued",
        "  Sessions  12 today (UTC), 4 in memory",
        "  Tools     files: ready, 3 tools",
        "  Disk      50.0 GiB of 100.0 GiB free",
        "  Process   7, up 2 h 5 min, 80 MiB",
    ]


def test_trouble_is_marked_and_steers_no_terminal(
    terminal: None, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    asked(monkeypatch, TROUBLE)
    assert main(["status"]) == 1
    shown = capsys.readouterr().out
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    lines = bare(shown)
    assert lines[1] == "  ● Lunar is in trouble 1.2.3"
    told = [line for line in lines if "telegram:" in line]
    assert len(told) == 1  # once, with its channel
    assert "Unauthorized" in told[0]
    assert "2 replies not delivered: Forbidden" in told[0]
    assert "  Trouble      ● model default: 401: \ufffd]0;title\ufffd no such key" in lines
    assert "  Disk         ● 1.0 GiB of 100.0 GiB free" in lines
    assert "  Last errors  01 Mar 12:00:00  a channel failed (channel telegram): line break" in lines


def test_watching_goes_on_through_a_restart(
    terminal: None, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(monkeypatch, DATA, NotRunning("No gateway is running here."), DATA, KeyboardInterrupt())
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert main(["status", "--watch"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Lunar is ready") == 2
    assert "● No gateway is running here." in "\n".join(bare(shown))
    assert shown.endswith("\x1b[?25h\x1b[?1049l")  # the cursor and the screen are given back


def test_watching_from_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, DATA, DATA, NotRunning("gone"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert main(["status", "--watch", "--json"]) == os.EX_UNAVAILABLE
    out = capsys.readouterr().out
    assert [json.loads(line)["pid"] for line in out.splitlines()] == [7, 7]
