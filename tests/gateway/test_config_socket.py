from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import config_socket
from gateway.errors import ConfigError
from tests.gateway.environment import clear


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    clear(monkeypatch, folder)


def listens(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("drain: 20s", "data/lunar.sock"),
        ("drain: 20", "data/lunar.sock"),
        ("htp: {}\ndata_dir: var", "var/lunar.sock"),
        ("htp: {}\nchannels: {cli: {socket: here.sock}}", "here.sock"),
        ("htp:\n\tport: 1\ndata_dir: 'var'  # mine", "var/lunar.sock"),
        ("htp:\n\tport: 1\nchannels:\n  cli:\n    socket: here.sock\n", "here.sock"),
        ("htp:\n\tport: 1\nchannels:\n  cli:\n    socket: null\n", "data/lunar.sock"),
    ],
)
def test_a_gateway_is_found_whatever_became_of_its_file(text: str, place: str, folder: Path) -> None:
    Path("config.yaml").write_text(text)
    there = listens(folder / place)
    assert config_socket.find(None) == config_socket.find("config.yaml") == there


@pytest.mark.parametrize(
    "text", ["{data_dir: ./var}", '{"data_dir": "var"}', "channels: {cli: {socket: var/lunar.sock}}"]
)
def test_no_other_gateway_is_taken_for_ours(text: str, folder: Path) -> None:
    Path("config.yaml").write_text(text)
    listens(folder / "data" / "lunar.sock")  # at the default place
    assert config_socket.find(None) == folder / "var" / "lunar.sock"


def test_a_gateway_that_runs_is_found_without_a_check_of_the_file(folder: Path) -> None:
    Path("config.yaml").write_text("drain: 20s  # data_dir: no\ndata_dir: var\n")
    listens(folder / "var" / "lunar.sock")
    look = "import sys; from gateway import config_socket; config_socket.find(None)"
    code = f"{look}; assert 'pydantic' not in sys.modules"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)}, check=True)


def test_where_nothing_listens_the_file_is_what_is_wrong() -> None:
    Path("config.yaml").write_text("htp: {}")
    with pytest.raises(ConfigError, match="htp: unknown key"):
        config_socket.find(None)


def test_the_environment_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.yaml").write_text("htp: {}")
    monkeypatch.setenv("LUNAR_DATA_DIR", str(folder / "elsewhere"))
    there = listens(folder / "elsewhere" / "lunar.sock")
    assert config_socket.find(None) == there
