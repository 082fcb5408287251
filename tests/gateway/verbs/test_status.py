from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from gateway import __version__
from gateway.__main__ import main
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
        rows = {line[:8].strip(): line[8:].strip() for line in out.splitlines()}
        assert rows["Gateway"] == f"ready, version {__version__}"
        assert daemon.process is not None
        assert rows["Process"].startswith(f"{daemon.process.pid}, up ")
        assert rows["Models"] == "main: demo (demo)"
        assert rows["Turns"] == "0 running, 0 messages waiting"
        assert "demo model" in rows["Demo"]

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
