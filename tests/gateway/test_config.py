from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from gateway.config import Config, Model
from gateway.config_values import credential
from tests.gateway.environment import clear


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(data)
    (problem,) = caught.value.errors()
    return problem["msg"]


def key_of(config: Config) -> str | None:
    key = config.models["default"].api_key
    return key.get_secret_value() if key else None


def test_the_defaults_serve_one_person_on_this_machine_alone() -> None:
    config = Config()
    assert (config.http.host, config.http.port, config.http.token) == ("127.0.0.1", 8420, None)
    assert config.models == {"default": Model()}
    assert list(config.agents) == ["main"]
    assert config.drain == timedelta(seconds=20)
    assert config.channels.cli.group is None


def test_it_cannot_be_changed_once_it_is_made() -> None:
    with pytest.raises(ValidationError):
        Config().queue.running = 1


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("20s", timedelta(seconds=20)),
        ("500ms", timedelta(milliseconds=500)),
        ("1.5 m", timedelta(seconds=90)),
        (" 2h ", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
    ],
)
def test_durations_have_a_unit(written: str, meant: timedelta) -> None:
    assert Config.model_validate({"drain": written}).drain == meant


@pytest.mark.parametrize("written", [20, "20", "s", "-1s", "20 seconds", "", None, True])
def test_durations_without_one_are_refused(written: object) -> None:
    assert "must be a number with a unit" in refusal({"drain": written})


def test_a_duration_beyond_all_calendars_is_refused() -> None:
    assert "must be a shorter time" in refusal({"drain": "99999999999999d"})


@pytest.mark.parametrize("section", ["http", "queue", "model", "channels", "models", "agents"])
def test_a_section_whose_keys_are_all_commented_out_keeps_its_defaults(section: str) -> None:
    assert Config.model_validate({section: None}) == Config()


@pytest.mark.parametrize("section", [{"http": {"port": True}}, {"queue": {"running": False}}])
def test_yes_and_no_are_not_numbers(section: dict[str, Any]) -> None:
    assert "must be a whole number" in refusal(section)


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_have_bounds(port: int) -> None:
    refusal({"http": {"port": port}})


# -- models and agents -----------------------------------------------------------------------------


def test_model_is_short_for_models_default() -> None:
    short = Config.model_validate({"model": {"name": "a"}, "models": {"fast": {"name": "b"}}})
    assert short.models == {"default": Model(name="a"), "fast": Model(name="b")}


def test_the_short_and_the_long_form_exclude_each_other() -> None:
    assert "write one of them" in refusal({"model": {}, "models": {"default": {}}})


def test_default_and_main_are_there_beside_others() -> None:
    config = Config.model_validate({"models": {"fast": {}}, "agents": {"helper": {"model": "fast"}}})
    assert set(config.models) == {"default", "fast"}
    assert set(config.agents) == {"main", "helper"}


def test_an_agent_needs_a_model_that_is_there() -> None:
    assert "agents.main.model: there is no models.foo" in refusal({"agents": {"main": {"model": "foo"}}})


def test_web_clients_can_only_be_offered_agents_that_are_there() -> None:
    assert "http.agents: there is no agents.foo" in refusal({"http": {"agents": ["foo"]}})


@pytest.mark.parametrize("name", ["Main", "a b", "a-b", "", "ä"])
def test_names_are_plain(name: str) -> None:
    refusal({"agents": {name: {}}})


# -- the store -----------------------------------------------------------------------------------


def test_the_store_is_on_the_disk_unless_a_database_is_named() -> None:
    store = Config.model_validate({}).store
    assert (store.url, store.node) == (None, None)
    store = Config.model_validate({"store": {"url": "postgresql://u:p@h/d", "node": "n1"}}).store
    assert (store.url, store.node) == (SecretStr("postgresql://u:p@h/d"), "n1")
    assert "u:p" not in repr(store)


@pytest.mark.parametrize("url", ["mysql://h/d", "h:5432/d", "postgresql://"])
def test_another_database_is_none_of_ours(url: str) -> None:
    assert "must begin with postgresql://" in refusal({"store": {"url": url}})


# -- who may reach the port ------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
@pytest.mark.parametrize("token", [None, "", "   "])
def test_no_bind_to_the_network_without_a_token(host: str, token: str | None) -> None:
    assert "http.token: " in refusal({"http": {"host": host, "token": token}})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_this_machine_alone_needs_none(host: str) -> None:
    assert Config.model_validate({"http": {"host": host}}).http.token is None


def test_with_a_token_the_network_is_open() -> None:
    http = Config.model_validate({"http": {"host": "0.0.0.0", "token": "correct horse"}}).http
    assert http.token == SecretStr("correct horse")


@pytest.mark.parametrize(
    "origin", ["chat.example.org", "https://", "https://a/b", "https://u@a", "ftp://a", "*"]
)
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    assert "must be a scheme and a host" in refusal({"http": {"allowed_origins": [origin]}})


@pytest.mark.parametrize("url", ["localhost:11434", "http://", "ftp://a", "", "http:// a"])
def test_a_base_url_begins_with_http(url: str) -> None:
    assert "must begin with http" in refusal({"model": {"base_url": url}})


# -- secrets ---------------------------------------------------------------------------------------


def test_a_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-from-the-environment \n")
    assert (
        key_of(Config.model_validate({"model": {"api_key": {"env": "MY_KEY"}}})) == "sk-from-the-environment"
    )


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_missing_or_empty(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    assert "the environment has no MY_KEY" in refusal({"model": {"api_key": {"env": "MY_KEY"}}})


def test_a_secret_from_the_credentials_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "key").write_text("sk-from-a-file\n")
    assert key_of(Config.model_validate({"model": {"api_key": {"credential": "key"}}})) == "sk-from-a-file"


@pytest.mark.parametrize("name", ["../key", "/etc/passwd", ".key"])
def test_a_credential_is_no_path(name: str) -> None:
    assert "plain name of a file" in refusal({"model": {"api_key": {"credential": name}}})
    with pytest.raises(ValueError, match="plain name"):
        credential(name)


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_credential_that_holds_nothing_usable(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    assert credential("key") is None
    assert "there is no text in $CREDENTIALS_DIRECTORY/key" in refusal(
        {"model": {"api_key": {"credential": "key"}}}
    )


@pytest.mark.parametrize("value", [12345, True, ["a"], {"env": 1}, {"env": "A", "credential": "b"}, {}])
def test_other_forms_of_a_secret_are_refused(value: object) -> None:
    assert "must be a text (in quotes), {env: NAME} or {credential: name}" in refusal(
        {"model": {"api_key": value}}
    )


@pytest.mark.parametrize("value", ["", "  ", None])
def test_an_empty_secret_is_none(value: str | None) -> None:
    assert key_of(Config.model_validate({"model": {"api_key": value}})) is None


def test_a_secret_does_not_show_when_the_configuration_is_printed() -> None:
    config = Config.model_validate({"model": {"api_key": "sk-very-secret"}})
    assert "sk-very-secret" not in f"{config} {config!r} {config.model_dump_json()}"


def test_the_socket_lies_in_the_data_directory_unless_it_is_named(tmp_path: Path) -> None:
    assert Config(data_dir=tmp_path).socket == tmp_path / "lunar.sock"
    named = Config.model_validate({"channels": {"cli": {"socket": "/run/x.sock"}}})
    assert named.socket == Path("/run/x.sock")


@pytest.mark.parametrize("whose", ["peer", "agent"])
def test_a_budget_in_money_needs_prices(whose: str) -> None:
    models: dict[str, Any] = {"default": {"price": {"input": 1, "output": 2}}, "spare": {}}
    agent: dict[str, Any] = {"budget": {whose: {"money": 5}}}
    Config.model_validate({"models": models, "agents": {"main": agent}})
    said = refusal({"models": models, "agents": {"main": {**agent, "fallback": ["spare"]}}})
    assert f"agents.main.budget.{whose}.money: models.spare has no price" in said
    free = {"budget": {whose: {"tokens": 5}}, "model": "spare"}
    Config.model_validate({"models": models, "agents": {"main": free}})
