"""How `lunar check` tells what it found; what it finds is tried in tests/gateway/checks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import structlog

from gateway import ask
from gateway.__main__ import main
from gateway.errors import GatewayError, NotPermitted
from tests.gateway.environment import clear
from tests.test_structure import loaded_by

HUSH = "hush-hush-hush-hush"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("LUNAR_HTTP__PORT", "0")


def checked(capsys: pytest.CaptureFixture[str], text: str = "", *options: str) -> tuple[int, str]:
    Path("config.yaml").write_text(text)
    Path("config.yaml").chmod(0o600)
    code = main(["check", "--offline", *options])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out


def test_a_line_for_each_check_and_the_sum_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = checked(
        capsys, "agents: {second: {model: fast}}\nmodels: {fast: {name: x, base_url: 'http://127.0.0.1:1'}}"
    )
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "ok       config    config.yaml"
    assert f"ok       data      {tmp_path}/data, which will be made" in lines
    assert "ok       model     fast (x) is not asked (--offline)" in lines
    assert lines[-1] == "No problems."
    assert not (tmp_path / "data").exists()


def test_what_mends_it_stands_below(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = checked(capsys, "http:\n  prot: 1\nqueue: {mode: 3}")
    assert code == os.EX_CONFIG
    assert out.splitlines()[:2] == [
        "problem  config    config.yaml:2: http.prot: unknown key",
        "                   → did you mean `port`?",
    ]
    assert out.splitlines()[-1] == "2 problems."


def test_a_warning_is_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    code, out = checked(capsys)
    assert code == 0
    assert out.splitlines()[-1] == "No problems, 1 warning."
    code, out = checked(capsys, "channels: {cli: {group: nobodys}}")
    assert code == os.EX_CONFIG
    assert out.splitlines()[-1] == "1 problem and 1 warning."


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = checked(capsys, "http: {prot: 1}", "--json")
    (found,) = map(json.loads, out.splitlines())
    assert (code, found["code"]) == (78, 78)
    assert found == {
        "check": "config",
        "level": "problem",
        "text": "config.yaml:1: http.prot: unknown key",
        "fix": "did you mean `port`?",
        "code": 78,
    }


@pytest.mark.parametrize(
    ("refusal", "code", "words"),
    [
        (NotPermitted("No."), 0, "warning  gateway   one is running, and does not answer this user: No."),
        (GatewayError("Broken."), 75, "problem  gateway   what runs here refuses to answer: Broken."),
    ],
)
def test_a_gateway_that_does_not_tell(
    refusal: GatewayError, code: int, words: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refused(*args: object) -> None:
        raise refusal

    monkeypatch.setattr(ask, "control", refused)
    got, out = checked(capsys)
    assert got == code
    assert words in out


def test_no_secret_is_printed_and_the_log_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    _, out = checked(
        capsys, f"model: {{api_key: Bearer {HUSH}, base_url: 'http://me:{HUSH}@host/v1/models'}}"
    )
    assert "begins with `Bearer`" in out
    assert "names one call" in out
    assert HUSH not in out
    assert structlog.get_config() == before


def test_nothing_heavy_is_imported_where_nobody_is_asked() -> None:
    program = "from gateway.__main__ import main\nmain(['check', '--offline'])"
    assert not {"openai", "httpx2", "telegram", "httpx"} & loaded_by(program)
