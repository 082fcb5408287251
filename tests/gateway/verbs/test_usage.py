from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from session import archive, events, ids
from session.events import Assistant, Event, System, Usage, User
from tests.conftest import Daemons
from tests.fakes.openai_server import OpenAIServer
from tests.gateway.environment import clear
from tests.gateway.verbs.lunar import LOCAL, lunar, wrote

TODAY = datetime.now(UTC)
ANNA = "agent:writer:telegram:user:1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


def closed(used: Usage | None, *, ago: int = 0, model: str | None = "large") -> Event:
    ts = events.timestamp(TODAY - timedelta(days=ago))
    return Assistant(content="x", turn="t", answers=("m",), finish="stop", model=model, usage=used, ts=ts)


def said(data_dir: Path) -> None:
    wrote(
        data_dir,
        User(content='my "usage":{"input":5} is', id="m", ts=events.timestamp(TODAY)),
        closed(Usage(1000, 100, 0.5), ago=40),
        closed(Usage(200, 20, 0.25), ago=1),
        closed(Usage(30, 3, 0.125)),
        closed(None),
        session=LOCAL,
    )
    ts = events.timestamp(TODAY)
    wrote(
        data_dir,
        closed(Usage(4000, 400, estimated=True), model="small"),
        System(name="summary", content="x", model="small", usage=Usage(7, 1, 1.5), ts=ts),
        System(name="turn_failed", turn="u", answers=("n",), usage=Usage(9, 0), ts=ts),
        session=ANNA,
    )


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["usage", "--json", *arguments]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def rows(data: dict[str, Any]) -> dict[str, tuple[int, int, int, float | None]]:
    return {row[data["by"]]: (row["turns"], row["input"], row["output"], row["cost"]) for row in data["rows"]}


def test_by_day_by_agent_by_session_and_by_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(tmp_path / "data")
    yesterday, today = (f"{TODAY - timedelta(days=ago):%Y-%m-%d}" for ago in (1, 0))
    data = asked(capsys)
    assert rows(data) == {yesterday: (1, 200, 20, 0.25), today: (3, 4046, 404, 1.625)}
    assert data["total"] == {"turns": 4, "input": 4246, "output": 424, "cost": 1.875, "estimated": True}
    assert rows(asked(capsys, "--by", "agent", "--days", "1")) == {
        "writer": (2, 4016, 401, 1.5),
        "main": (1, 30, 3, 0.125),
    }
    assert list(rows(asked(capsys, "--by", "session"))) == [ANNA, LOCAL]  # the dearest first
    assert rows(asked(capsys, "--by", "model", "--days", "90")) == {
        "small": (1, 4007, 401, 1.5),
        "large": (3, 1230, 123, 0.875),
        "(not known)": (1, 9, 0, None),
    }


def test_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(tmp_path / "data")
    assert main(["usage", "--by", "model", "--days", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["model", "turns", "tokens", "in", "tokens", "out", "cost"]
    assert out[2].split() == ["small", "1", "~4,007", "~401", "1.50"]
    assert out[3].split() == ["large", "1", "30", "3", "0.1250"]
    assert out[-3].split() == ["total", "3", "~4,046", "~404", "1.62"]
    assert len({len(line) for line in out[:-2]}) == 1
    assert "partly estimated" in out[-1]


def test_files_that_are_older_than_the_span_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(tmp_path / "data")
    old = time.time() - 10 * 86_400
    os.utime(tmp_path / "data" / "sessions" / ids.file_name(LOCAL), (old, old))
    read: list[str] = []
    blocks = archive.blocks
    monkeypatch.setattr(
        archive, "blocks", lambda folder, name, rest: (read.append(name), blocks(folder, name))[1]
    )
    assert list(rows(asked(capsys, "--by", "session"))) == [ANNA]
    assert read == [ids.file_name(ANNA)]


def test_archived_conversations_count_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(tmp_path / "data")
    before = asked(capsys)
    assert archive.pack(tmp_path / "data", ids.file_name(ANNA))
    assert not (tmp_path / "data" / "sessions" / ids.file_name(ANNA)).exists()
    assert asked(capsys) == before


def test_where_nothing_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--days", "1"]) == 0
    assert capsys.readouterr().out == f"No model was asked since {TODAY:%Y-%m-%d} (UTC).\n"
    assert asked(capsys)["total"]["cost"] is None


@pytest.mark.parametrize("days", ["0", "-1", "100000000000"])
def test_no_span_at_all(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", f"--days={days}"]) == os.EX_USAGE
    assert "--days" in capsys.readouterr().err


async def test_beside_a_running_gateway(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as daemon:
        client = await daemon.client()
        await client.ask("Hello")
        ran = await lunar("usage", "--json", cwd=daemon.folder, LUNAR_DATA_DIR=str(daemon.data_dir))
        data = json.loads(ran.out)
        assert ran.code == 0
        assert data["total"]["turns"] == 1
        assert data["total"]["input"] > 0
