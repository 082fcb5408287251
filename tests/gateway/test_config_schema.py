"""The schema knows what the models know, and the documentation's table is made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import Agent, Config
from gateway.config_problem import ANY, written
from gateway.config_schema import BEGIN, END, meaning, reference, renewed, schema

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"


def accepts(data: Any) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    return bool(jsonschema.Draft202012Validator(schema()).is_valid(data))


def test_it_is_a_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    json.dumps(schema())


@pytest.mark.parametrize("path", [ROOT / "config.yaml"])
def test_the_shipped_configuration_is_valid(path: Path) -> None:
    assert accepts(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"http": None},
        {"http": {"token": {"env": "A"}}, "drain": "500ms"},
        {"model": {"api_key": {"credential": "a"}, "base_url": "http://a/v1", "price": {"input": 1}}},
        {"agents": {"main": {"system_prompt": {"file": "p.md"}}}},
        {"channels": {"telegram": {"allow": [1, "@hao", "-100"]}}},
        {"routes": [{"provider": "telegram", "agent": "main"}]},
        {"http": {"trusted_proxies": ["10.0.0.0/8"], "allowed_origins": ["https://a.example"]}},
    ],
)
def test_what_the_gateway_takes_the_schema_takes(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "secret")
    monkeypatch.setattr("gateway.config_values.credential", lambda name: "secret")
    Config.model_validate(data)
    assert accepts(data)


@pytest.mark.parametrize(
    "data",
    [
        {"htp": {}},
        {"http": {"prot": 1}},
        {"http": {"port": 70000}},
        {"http": {"agents": "main"}},
        {"http": {"token": {"evn": "A"}}},
        {"drain": "20"},
        {"drain": 20},
        {"queue": {"mode": "all"}},
        {"model": {"base_url": "localhost:1"}},
        {"agents": {"Main": {}}},
        {"channels": {"telegram": {"allow": ["hao"]}}},
        {"routes": [{}]},
    ],
)
def test_what_the_gateway_refuses_the_schema_refuses(data: Any) -> None:
    with pytest.raises(ValueError):  # pydantic's ValidationError is one
        Config.model_validate(data)
    assert not accepts(data)


def test_every_key_says_what_it_is_for_and_what_it_is_without() -> None:
    """`model` is short for `models.default`, and stands for all of it."""
    built = schema()
    for key in written():
        section, properties = built, built["properties"]
        for part in key:
            if part == ANY:
                continue
            section = properties[part]
            assert section["description"], ".".join(key)
            below = next(_below(section), None)
            properties = built["$defs"][below]["properties"] if below else {}
    assert built["properties"]["drain"]["default"] == "20s"
    assert built["properties"]["channels"]["default"]["telegram"]["bot_token"] is None


def _below(section: dict[str, Any]) -> Any:
    """The names of the sections that a key's value may be."""
    by_name = section.get("patternProperties", {}).values()
    for candidate in (section, *by_name, *section.get("anyOf", ())):
        if isinstance(candidate, dict) and "$ref" in candidate:
            yield candidate["$ref"].rpartition("/")[2]


def test_the_meaning_is_the_docstring_below_the_key() -> None:
    assert meaning(Agent, "history_turns").startswith(
        "how many earlier messages, of both sides, the model sees"
    )
    with pytest.raises(KeyError):
        meaning(Agent, "nope")


def test_the_reference_in_the_documentation_is_what_the_models_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == renewed(page), f"run `python -m gateway.config_schema` in {ROOT.name}, and commit the page"
    assert page.count(BEGIN) == page.count(END) == 1


def test_the_command_writes_it(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "configuration.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "gateway.config_schema"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, timeout=60,
    )  # fmt: skip
    assert page.read_text(encoding="utf-8") == f"before\n\n{reference()}\n\nafter\n"
