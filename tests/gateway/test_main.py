from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gateway import __version__
from gateway.__main__ import main, parser
from gateway.errors import ConfigError
from gateway.verbs.sessions import listing
from tests.gateway.environment import clear


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    "line",
    ["rum", "sessions", "sessions lis", "sessions show", "chat --socket", "--nope", "status --yes", "run x"],
)
def test_a_wrong_command_line_exits_with_64_and_the_usage(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == os.EX_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: lunar")


def test_without_a_command_the_help_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lunar"])
    assert main() == os.EX_USAGE
    assert "run the gateway in the foreground" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"lunar {__version__}\n"


@pytest.mark.parametrize(
    "line", ["", "run", "chat", "sessions", "sessions list", "sessions show", "sessions verify",
             "sessions delete", "sessions tail", "sessions search", "sessions export", "sessions archive",
             "sessions stats", "backup", "restore", "status", "check"],
)  # fmt: skip
def test_every_help_is_tidy(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*line.split(), "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: lunar {line}".strip())
    assert "\n\n\n" not in text
    assert all(written == written.rstrip() and len(written) <= 80 for written in text.splitlines())
    assert "==SUPPRESS==" not in text


@pytest.mark.parametrize(
    "line",
    ["--config x.yaml sessions list", "sessions --config x.yaml list", "sessions list --config x.yaml"],
)
def test_the_configuration_is_named_anywhere(line: str) -> None:
    assert parser().parse_args(line.split()).config == "x.yaml"


def test_the_nearest_option_counts() -> None:
    assert parser().parse_args(["--config", "a", "status", "--config", "b"]).config == "b"
    assert parser().parse_args(["status"]).config is None


def test_each_problem_is_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise ConfigError(["one", "two"])

    monkeypatch.setattr(listing, "main", fail)
    assert main(["sessions", "list"]) == os.EX_CONFIG
    assert capsys.readouterr().err == "lunar: one\nlunar: two\n"


def test_ctrl_c_ends_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "main", interrupted)
    assert main(["sessions", "list"]) == 130
    assert capsys.readouterr() == ("", "")
