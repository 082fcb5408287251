from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.__main__ import main
from tests.gateway.environment import clear


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


def checked(capsys: pytest.CaptureFixture[str], text: str | None) -> tuple[int, str, str]:
    if text is not None:
        Path("config.yaml").write_text(text)
        Path("config.yaml").chmod(0o600)
    code = main(["check"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_configuration_without_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = checked(capsys, "http: {port: 81}\nagents: {second: {model: fast}}\nmodels: {fast: {}}")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "config.yaml: no problems",
        f"data      {tmp_path}/data",
        "http      http://127.0.0.1:81/",
        f"socket    {tmp_path}/data/lunar.sock",
        "agent     main: model default (auto)",
        "agent     second: model fast (auto)",
    ]
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(Path("/etc/lunar/config.yaml").exists(), reason="this machine has a configuration")
def test_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, None)[1].startswith("built-in defaults: no problems\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http:\n  port: x", "config.yaml:2: http.port: must be a whole number, not 'x'"),
        (
            "agents:\n  main:\n    tools: [nope]",
            "config.yaml:3: agents.main.tools: there is no tool 'nope'; there are: get_current_datetime",
        ),
        ("queue: {}\ndata_dir: /dev/null", "config.yaml:2: data_dir: /dev/null is not a directory"),
        ("data_dir: /dev/null/below", "config.yaml:1: data_dir: /dev/null is not a directory"),
        ("data_dir: /proc/x", "config.yaml:1: data_dir: /proc cannot be written by this user"),
    ],
)
def test_a_problem_is_named_with_its_place(
    text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "/proc" in text and os.access("/proc", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert checked(capsys, text) == (os.EX_CONFIG, "", f"lunar: {problem}\n")


def test_no_secret_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = checked(capsys, "model: {api_key: sk-hunter2}\nhttp: {token: hush-hush}")
    assert (code, err) == (0, "")
    assert "hunter2" not in out
    assert "hush" not in out
