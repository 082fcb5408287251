from __future__ import annotations

from pathlib import Path

import pytest

from gateway import config_file
from gateway.config_problem import ANY, Places, known_keys, located, written
from gateway.errors import ConfigError
from tests.gateway.environment import clear


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


def problems(text: str) -> list[str]:
    file = Path("c.yaml")
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        config_file.load("c.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # unknown keys
        ("htp: {}", "c.yaml:1: htp: unknown key; did you mean `http`?"),
        ("http:\n  prot: 1", "c.yaml:2: http.prot: unknown key; did you mean `port`?"),
        ("port: 9000", "c.yaml:1: port: unknown key; did you mean `http.port`?"),
        ("queue: {zzz: 1}", "c.yaml:1: queue.zzz: unknown key; known here: mode, running"),
        ("model:\n  nme: x", "c.yaml:2: model.nme: unknown key; did you mean `name`?"),
        ("models:\n  x:\n    nme: x", "c.yaml:3: models.x.nme: unknown key; did you mean `name`?"),
        # the wrong kind of value
        ("http: 3", "c.yaml:1: http: must be a mapping of keys, not 3"),
        ("agents: [1]", "c.yaml:1: agents: must be a mapping of keys, not a list"),
        ("agents:\n  main:\n    tools: foo", "c.yaml:3: agents.main.tools: must be a list, such as [a, b], "
         "not 'foo'"),
        ("http:\n  host: x\n  port: abc", "c.yaml:3: http.port: must be a whole number, not 'abc'"),
        ("http: {port: yes}", "c.yaml:1: http.port: must be a whole number, not true"),
        ("http: {port: 1.5}", "c.yaml:1: http.port: must be a whole number, not 1.5"),
        ("http: {port: [1]}", "c.yaml:1: http.port: must be a whole number, not a list"),
        ("http: {port: }", "c.yaml:1: http.port: must be a whole number, not empty"),
        ("channels: {webchat: {enabled: maybe}}", "c.yaml:1: channels.webchat.enabled: must be true or "
         "false, not 'maybe'"),
        ("model: {name: 4.1}", "c.yaml:1: model.name: must be a text: put it in quotes"),
        ("model: {name: [a]}", "c.yaml:1: model.name: must be a text, not a list"),
        ("data_dir: null", "c.yaml:1: data_dir: must be a path, not empty"),
        ("channels:\n  cli:\n    operators:\n      - a\n      - 1000", "c.yaml:5: channels.cli.operators.1: "
         "must be a text: put it in quotes"),
        ("1: x", "c.yaml:1: 1: a key must be a text: put it in quotes"),
        # the wrong value
        ("http: {port: 70000}", "c.yaml:1: http.port: must be at most 65535, not 70000"),
        ("queue: {running: 0}", "c.yaml:1: queue.running: must be at least 1, not 0"),
        ("queue: {running: 99999999999999999999}", "c.yaml:1: queue.running: must be at most 10000, not a "
         "number of that size"),
        (
            "queue: {mode: all}",
            "c.yaml:1: queue.mode: must be 'collect', 'each', 'steer' or 'interrupt', not 'all'",
        ),
        ("drain: 20", "c.yaml:1: drain: must be a number with a unit, such as 20s, 500ms or 5m, not 20"),
        ("http: {trusted_proxies: [foo]}", "c.yaml:1: http.trusted_proxies.0: must be an address or a "
         "network, such as 127.0.0.1 or 10.0.0.0/8, not 'foo'"),
        ("agents: {Main: {}}", "c.yaml:1: agents.Main: a name may only have a-z, 0-9 and _"),
        # what does not fit together: the place is that of the key it is about
        ("data_dir: x\nagents:\n  main:\n    model: foo", "c.yaml:4: agents.main.model: there is no "
         "models.foo"),
        ("agents: {}\nmodel: {}\nmodels: {default: {}}", "c.yaml:2: model: is short for models.default: "
         "write one of them, not both"),
        ("http:\n  agents: [foo]", "c.yaml:2: http.agents: there is no agents.foo"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_everything_is_named_at_once() -> None:
    found = problems("http: {port: x}\nqueue: {mode: y}\nzzz: 1")
    assert [problem.split(": ")[1] for problem in found] == ["http.port", "queue.mode", "zzz"]


@pytest.mark.parametrize(
    "text",
    [
        "model: hunter2",
        "model: {api_key: [hunter2]}",
        "model: {api_key: {text: hunter2}}",
        "model: {api_key: {env: A, hunter2: x}}",
        "model: {base_url: hunter2}",
        "model: {base_url: 'ftp://me:hunter2@host'}",
        "model: {name: [hunter2]}",
        "model: {key: hunter2}",
        "models: {default: hunter2}",
        "models: hunter2",
        "http: {token: [hunter2]}",
        "http: {host: 0.0.0.0, tokn: hunter2}",
        "http: {allowed_origins: ['https://me:hunter2@host']}",
        "http: {port: sk-hunter2}",
        "model: {api_key: *hunter2}",
        "model: {api_key: !hunter2 x}",
        "model: {api_key: !h!hunter2 x}",
        "model:\n  api_key: hunter2: x",
        "model:\n  api_key: 'hunter2",
        "model:\n  api_key: @hunter2",
        "model:\n  api_key: [hunter2",
    ],
)
def test_a_secret_in_the_wrong_place_is_never_repeated(text: str) -> None:
    assert "hunter2" not in "\n".join(problems(text)).replace("hunter2: must", "")


def test_a_problem_that_begins_with_its_key_gets_its_place() -> None:
    places = Places(Path("c.yaml"), {("agents",): 3, ("agents", "main"): 4}, {})
    assert located("agents.main.tools: no x", places) == "c.yaml:4: agents.main.tools: no x"
    assert located("queue.mode: no x", places) == "c.yaml: queue.mode: no x"
    assert located("/some/path: is full", places) == "/some/path: is full"
    assert located("nothing.known: no x", places) == "nothing.known: no x"
    assert located("queue.mode: no x", Places(None, {}, {})) == "queue.mode: no x"


def test_the_keys_as_people_write_them() -> None:
    keys = set(written())
    assert {("data_dir",), ("http", "port"), ("model", "name"), ("models", ANY, "api_key")} < keys
    assert ("agents", ANY, "history_turns") in keys
    assert ("http",) not in keys
    assert known_keys(("model",)) == known_keys(("models", "any"))
    assert known_keys(("http", "port")) == known_keys(("nothing", "here")) == []
