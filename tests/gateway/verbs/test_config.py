from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from gateway.config_schema import schema
from tests.gateway.environment import clear
from tests.test_structure import loaded_by

HUSH = "hush-hush-hush-hush"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


def wrote(text: str) -> None:
    Path("config.yaml").write_text(text)
    Path("config.yaml").chmod(0o600)


def values(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["config", "show", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert HUSH not in captured.out
    shown: dict[str, Any] = json.loads(captured.out)["values"]
    return shown


def test_where_each_value_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNAR_QUEUE__RUNNING", "3")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("MINE", HUSH)
    monkeypatch.setenv("LUNAR_AGENTS__WRITER", "{tools: []}")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "telegram_bot_token").write_text(HUSH)
    (tmp_path / "mine").write_text(HUSH)
    wrote(
        "drain: 90s\nhttp:\n  token: {env: MINE}\nqueue: {running: 7}\n"
        "model:\n  name: x\nmodels:\n  other:\n    api_key: {credential: mine}\n"
    )
    found = values(capsys)
    assert {key: (row["value"], row["from"], row["place"]) for key, row in found.items()}.items() >= {
        "drain": ("90s", "file", "config.yaml:1"),
        "http.token": ("[secret]", "environment", "$MINE"),
        "http.port": (8420, "default", None),
        "queue.running": (3, "environment", "$LUNAR_QUEUE__RUNNING"),
        "queue.mode": ("collect", "default", None),
        "models.default.name": ("x", "file", "config.yaml:6"),
        "models.default.base_url": ("http://127.0.0.1:1/v1", "environment", "$OPENAI_BASE_URL"),
        "models.other.api_key": ("[secret]", "credential", "$CREDENTIALS_DIRECTORY/mine"),
        "models.other.name": ("auto", "default", None),
        "agents.main.tools": (
            ["get_current_datetime", "search_transcript", "read_attachment"],
            "default",
            None,
        ),
        "agents.writer.tools": ([], "environment", "$LUNAR_AGENTS__WRITER"),
        "agents.writer.model": ("default", "default", None),
        "channels.telegram.bot_token": (
            "[secret]", "credential", "$CREDENTIALS_DIRECTORY/telegram_bot_token",
        ),
        "data_dir": (str(tmp_path / "data"), "default", None),
        "channels.cli.socket": (str(tmp_path / "data" / "lunar.sock"), "default", None),
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        f"model: {{api_key: {HUSH}}}",
        f"model: {{base_url: 'https://me:{HUSH}@host/v1'}}",
        f"model: {{base_url: 'https://{HUSH}@host/v1'}}",
        f"model: {{base_url: 'https://host/v1?key={HUSH}'}}",
        f"tools: {{mcp: {{a: {{command: [x, {HUSH}], env: {{TOKEN: {HUSH}}}}}}}}}",
        f"tools: {{mcp: {{a: {{url: 'http://host', headers: {{Authorization: {HUSH}}}}}}}}}",
        f"agents: {{main: {{system_prompt: 'The key is {HUSH}.'}}}}\nmodel: {{api_key: {HUSH}}}",
        f"channels: {{telegram: {{api_url: 'http://u:{HUSH}@host'}}}}",
    ],
)
def test_no_secret_is_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(text)
    assert values(capsys)
    assert main(["config", "show"]) == 0
    assert HUSH not in capsys.readouterr().out


def test_the_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    wrote("http: {token: hush-hush-hush-hush, port: 81}")
    assert main(["config", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# config.yaml"
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert rows["http.token"] == ["[secret]", "config.yaml:1"]
    assert rows["http.port"] == ["81", "config.yaml:1"]
    assert rows["channels.telegram.allow"] == ["null", "default"]


def test_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


@pytest.mark.parametrize("verb", ["show", "schema"])
def test_nothing_heavy_is_imported(verb: str) -> None:
    program = f"from gateway.__main__ import main\nmain(['config', '{verb}'])"
    assert not {"openai", "httpx2", "telegram", "aiohttp"} & loaded_by(program)
