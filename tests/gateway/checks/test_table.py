"""Planted problems, one each, through the real command: what is said, what mends it, the exit code."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.checks.finding import Finding, exit_code, ok, problem, warning
from gateway.checks.table import CHECKS
from tests.conftest import Daemons
from tests.gateway.checks.plants import CONFIG, KEY, PLANTS, TOKEN, Plant, Site
from tests.gateway.environment import clear
from tests.gateway.test_daemon_telegram import free_port
from tests.gateway.verbs.lunar import lunar


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("LUNAR_HTTP__PORT", "0")  # any free one: another gateway may have ours
    with ExitStack() as stack:
        yield Site(tmp_path, monkeypatch, stack)


def checked(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, object]]]:
    code = main(["check", "--json", *options])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, [json.loads(line) for line in captured.out.splitlines()]


@pytest.mark.parametrize("planted", PLANTS, ids=lambda planted: planted.name)
def test_a_planted_problem_is_found(planted: Plant, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    if planted.yaml is not None:
        text = planted.yaml if isinstance(planted.yaml, bytes) else planted.yaml.encode()
        Path("config.yaml").write_bytes(text)
        Path("config.yaml").chmod(0o600)
    planted.plant(site)
    code, findings = checked(capsys, "--offline")
    found = [row for row in findings if row["level"] != "ok"]
    assert [(row["check"], row["level"]) for row in found] == [(planted.check, planted.level)], found
    assert planted.text in str(found[0]["text"])
    assert planted.fix in str(found[0]["fix"])
    assert (code, found[0]["code"]) == (planted.code, planted.code)


def test_nothing_planted_nothing_found(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(f"http: {{token: {TOKEN}}}\nmodel: {{api_key: {KEY}}}")
    Path("config.yaml").chmod(0o600)
    site.data()
    code, findings = checked(capsys, "--offline")
    assert [row for row in findings if row["level"] != "ok"] == []
    assert code == 0
    assert {row["check"] for row in findings} == {check.name for check in CHECKS} - {"database"}

    assert sorted(os.listdir()) == ["config.yaml", "data"]
    assert os.listdir("data") == []


def test_what_is_to_be_mended_first_decides_the_exit_code() -> None:
    held, wrong = problem("", "", os.EX_TEMPFAIL), problem("", "", CONFIG)
    away = problem("", "", os.EX_UNAVAILABLE)
    assert exit_code([ok(""), warning("", "")]) == 0
    assert exit_code([away]) == os.EX_UNAVAILABLE
    assert exit_code([away, held, ok("")]) == os.EX_TEMPFAIL
    assert exit_code([held, wrong]) == CONFIG
    assert exit_code(list[Finding]()) == 0


async def test_beside_a_running_gateway(daemons: Daemons) -> None:
    port = free_port()
    daemon = daemons(LUNAR_HTTP__PORT=str(port), config={"channels": {"webchat": {"enabled": False}}})
    await daemon.start()
    surroundings = {"LUNAR_DATA_DIR": str(daemon.data_dir), "LUNAR_HTTP__PORT": str(port)}
    ran = await lunar("check", "--offline", cwd=daemon.folder, **surroundings)
    rows = dict(line.split(maxsplit=1) for line in _without_levels(ran.out))
    assert rows["gateway"].startswith("running: process ")
    assert rows["port"] == f"http://127.0.0.1:{port}/, where the running gateway listens"
    assert rows["data"].endswith("which the running gateway writes")
    assert rows["socket"].endswith("where the running gateway answers")
    assert (ran.code, ran.err) == (0, "")
    # The one that is configured now is another port, and that one is somebody else's.
    with socket.create_server(("127.0.0.1", 0)) as other:
        surroundings["LUNAR_HTTP__PORT"] = str(other.getsockname()[1])
        ran = await lunar("check", "--offline", cwd=daemon.folder, **surroundings)
    assert ran.code == os.EX_TEMPFAIL
    assert await daemon.stop() == 0


def _without_levels(out: str) -> list[str]:
    return [line[9:] for line in out.splitlines() if line.startswith(("ok ", "warning "))]


@pytest.mark.parametrize(
    ("arguments", "text", "code", "said"),
    [
        ("run", "http:\n\tport: 1", os.EX_CONFIG, "config.yaml:2: not valid YAML: a tab is used"),
        ("run", "http:\n  port: 1\n host: x", os.EX_CONFIG, "config.yaml:3: not valid YAML: the indentation"),
        (
            "run",
            "http: {prot: 1}",
            os.EX_CONFIG,
            "config.yaml:1: http.prot: unknown key; did you mean `port`?",
        ),
        (
            "run",
            "http: {agents: main}",
            os.EX_CONFIG,
            "http.agents: must be a list, such as [a, b], not 'main'",
        ),
        ("run", f'http: {{token: "{TOKEN}\\n"}}', os.EX_CONFIG, "http.token: holds a line break"),
        ("run", f"channels: {{cli: {{socket: /{'x' * 120}}}}}", os.EX_CONFIG, "channels.cli.socket: /xxx"),
        ("run", "data_dir: /proc/lunar", os.EX_CANTCREAT, "/proc/lunar"),
        ("run", "http: {port: HELD}", os.EX_TEMPFAIL, "is taken by another program"),
        ("check", "http:\n\tport: 1", os.EX_CONFIG, "config.yaml:2: not valid YAML: a tab is used"),
        ("check", "data_dir: /proc/lunar", os.EX_CANTCREAT, "cannot be written"),
        ("check", "http: {port: HELD}", os.EX_TEMPFAIL, "is taken by "),
    ],
)
async def test_a_newcomers_errors_as_processes(
    arguments: str, text: str, code: int, said: str, folder: Path
) -> None:
    """One clear message and its exit code, also from the gateway itself."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        text = text.replace("HELD", str(held.getsockname()[1]))
        (folder / "config.yaml").write_text(text)
        (folder / "config.yaml").chmod(0o600)
        ran = await lunar(*arguments.split(), cwd=folder)
    told = ran.err if arguments == "run" else ran.out
    assert ran.code == code, ran
    wrong = [line for line in told.splitlines() if line.startswith(("lunar: ", "problem"))]
    assert len(wrong) == 1, told
    assert said in wrong[0]
    assert "Traceback" not in ran.err
