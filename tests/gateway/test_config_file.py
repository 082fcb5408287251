from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from gateway import config_file
from gateway.config import Config
from gateway.errors import ConfigError
from tests.gateway.environment import clear


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    clear(monkeypatch, tmp_path)
    return tmp_path


def wrote(text: str | bytes, file: str = "config.yaml", mode: int = 0o600) -> Path:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def loaded(text: str) -> Config:
    wrote(text)
    return config_file.load()


def problems(text: str | bytes, mode: int = 0o600) -> list[str]:
    wrote(text, mode=mode)
    with pytest.raises(ConfigError) as caught:
        config_file.load()
    assert caught.value.exit_code == os.EX_CONFIG
    return caught.value.problems


# -- where it is found -----------------------------------------------------------------------------


def test_without_a_file_the_defaults_hold(home: Path) -> None:
    assert config_file.find(None) in (None, Path("/etc/lunar/config.yaml"))
    config = config_file.resolve(config_file.read(None))
    assert config.http == Config().http
    assert config.data_dir == home / "data"


def test_the_order_in_which_files_are_looked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = wrote("", ".config/lunar/config.yaml").absolute()
    assert config_file.find(None) == user
    xdg = wrote("", "elsewhere/lunar/config.yaml").absolute()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    assert config_file.find(None) == xdg
    wrote("", "config.yaml")
    assert config_file.find(None) == Path("config.yaml")
    wrote("", "variable.yaml")
    monkeypatch.setenv("LUNAR_CONFIG", "variable.yaml")
    assert config_file.find(None) == Path("variable.yaml")
    wrote("", "option.yaml")
    assert config_file.find("option.yaml") == Path("option.yaml")


def test_a_file_that_was_asked_for_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    wrote("")
    with pytest.raises(ConfigError, match=r"nope\.yaml: there is no such file \(--config names it\)"):
        config_file.find("nope.yaml")
    monkeypatch.setenv("LUNAR_CONFIG", "gone.yaml")
    with pytest.raises(ConfigError, match=r"gone\.yaml: there is no such file \(\$LUNAR_CONFIG names it\)"):
        config_file.find(None)


def test_a_home_that_nobody_knows_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert config_file.find(None) in (None, Path("/etc/lunar/config.yaml"))


# -- what it says ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}", "null", "\ufeffhttp: {}"])
def test_an_empty_file_is_the_defaults(text: str) -> None:
    assert loaded(text).http == Config().http


def test_paths_are_relative_to_the_file_and_not_to_the_caller(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote("data_dir: ../var\nchannels: {cli: {socket: run/s}}", "etc/lunar.yaml")
    (home / "other").mkdir()
    monkeypatch.chdir(home / "other")
    config = config_file.load("../etc/lunar.yaml")
    assert config.data_dir == home / "var"
    assert config.socket == home / "etc" / "run" / "s"


def test_a_tilde_is_the_home(home: Path) -> None:
    config = loaded("data_dir: ~/here\nchannels: {cli: {socket: ~/s}}")
    assert config.data_dir == home / "here"
    assert config.socket == home / "s"


def test_a_link_to_the_file_does_not_move_its_data(home: Path) -> None:
    target = wrote("data_dir: data", "real/config.yaml")
    (home / "link.yaml").symlink_to(target)
    assert config_file.load("link.yaml").data_dir == home / "real" / "data"


def test_a_socket_path_that_no_kernel_takes() -> None:
    (problem,) = problems(f"channels:\n  cli:\n    socket: /{'x' * 120}")
    assert problem.startswith("config.yaml:3: channels.cli.socket: /xxx")
    assert "121 bytes" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "config.yaml:3: not valid YAML: the key `a` is written twice; keep one of them"),
        (
            "http:\n  port: 1\n  port: 2",
            "config.yaml:3: not valid YAML: the key `port` is written twice; keep one of them",
        ),
        ("http:\n\tport: 1", "config.yaml:2: not valid YAML: a tab is used for indentation; use "
         "spaces, two for each level"),
        (
            "http:\n  port: 1\n host: x",
            "config.yaml:3: not valid YAML: the indentation does not fit the lines above, or a `-` or `:` "
            "is missing; begin all keys of a section in the same column",
        ),
        ("model:\n  name: a: b", "config.yaml:2: not valid YAML: a second `:` in one line; put the value in "
         "quotes, or on a new line"),
        ("drain: 1s\nhttp:\n  port 1\n", "config.yaml:2: http: must be a mapping of keys, not this text"),
        ("data_dir: 2020-13-45", "config.yaml:1: not valid YAML: there is no such number or date; put it in "
         "quotes"),
        (f"a: 1\nb: {'9' * 5000}", "config.yaml:2: not valid YAML: there is no such number or date; put "
         "it in quotes"),
        ('data_dir: "\\ud800"', "config.yaml:1: not valid YAML: the text holds half a character; write the "
         "whole one"),
        ("- a", "config.yaml:1: must be a mapping of keys, such as `data_dir: ./data`"),
        ("text", "config.yaml:1: must be a mapping of keys, such as `data_dir: ./data`"),
        ("a: 1\n---\nb: 2", "config.yaml:2: not valid YAML: a file holds one configuration; `---` begins a "
         "second one"),
        ("a: 1\nb: \x00", "config.yaml:2: not valid YAML: a control character is in the file"),
        ("a: &a [*a]", "config.yaml: is nested too deeply"),
        (b"a: 1\nb: \xff", "config.yaml:2: is not UTF-8; save the file as UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_at_all(text: str | bytes, problem: str) -> None:
    assert problems(text) == [problem]


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = wrote("")

    def refused(*args: object, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(ConfigError) as caught:
        config_file.read(path)
    assert caught.value.problems == ["config.yaml: cannot be read: Permission denied"]


# -- the environment -------------------------------------------------------------------------------


def test_variables_override_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNAR_HTTP__PORT", "9000")
    monkeypatch.setenv("LUNAR_DRAIN", "1m")
    monkeypatch.setenv("LUNAR_CHANNELS__WEBCHAT__ENABLED", "false")
    monkeypatch.setenv("LUNAR_AGENTS__MAIN__TOOLS", "[]")
    monkeypatch.setenv("LUNAR_HTTP__ALLOWED_ORIGINS", "[https://a.example, https://b.example]")
    monkeypatch.setenv("LUNAR_AGENTS__OTHER__MODEL", "default")
    config = loaded("http: {host: localhost, port: 1}\ndrain: 1s")
    assert (config.http.host, config.http.port) == ("localhost", 9000)
    assert config.drain == timedelta(minutes=1)
    assert config.channels.webchat.enabled is False
    assert config.agents["main"].tools == ()
    assert config.http.allowed_origins == ("https://a.example", "https://b.example")
    assert "other" in config.agents


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNAR_HTTP__PORT", "")
    assert loaded("http: {port: 81}").http.port == 81


@pytest.mark.parametrize("variable", ["LUNAR_CONFIG", "LUNAR_HTTP_TOKEN"])
def test_our_other_variables_are_no_keys(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(wrote("")))
    config_file.load()


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("LUNAR_HTTP__PORT", "x", "$LUNAR_HTTP__PORT (http.port): must be a whole number, not 'x'"),
        ("LUNAR_HTTP", "x", "$LUNAR_HTTP (http): must be a mapping of keys, not this text"),
        ("LUNAR_HTTP_PORT", "1", "$LUNAR_HTTP_PORT (http_port): unknown key; did you mean LUNAR_HTTP__PORT?"),
        ("LUNAR_ZZZ", "1", "$LUNAR_ZZZ (zzz): unknown key"),
        ("LUNAR_HTTP__AGENTS", "main", "$LUNAR_HTTP__AGENTS (http.agents): must be a list, such as [a, b], "
         "not 'main'"),
        ("LUNAR_HTTP__AGENTS", "[main", "$LUNAR_HTTP__AGENTS (http.agents): must be a list, such as [a, b], "
         "not '[main'"),
        ("LUNAR_AGENTS__MAIN__MODEL", "foo", "$LUNAR_AGENTS__MAIN__MODEL (agents.main.model): there is no "
         "models.foo"),
        ("OPENAI_BASE_URL", "foo", "$OPENAI_BASE_URL (models.default.base_url): must begin with http:// or "
         "https:// and a host"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(
    variable: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert problems("") == [problem]


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "model:\n", "model: {name: x}", "models: {default: {name: x}}", "models:\n"]
)
def test_the_key_that_everybody_has_in_the_environment(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ambient")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    config = loaded(text)
    assert config.models["default"].base_url == "http://127.0.0.1:1/v1"
    assert config_file.secrets(config) == ["sk-ambient"]


def test_what_the_file_says_comes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ambient")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://ambient")
    model = loaded("model: {api_key: sk-file, base_url: http://file}").models["default"]
    assert model.api_key is not None
    assert (model.api_key.get_secret_value(), model.base_url) == ("sk-file", "http://file")


def test_other_models_do_not_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ambient")
    assert loaded("models: {other: {base_url: 'http://x'}}").models["other"].api_key is None


def test_secrets_from_the_credentials_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(home))
    (home / "openai_api_key").write_text("sk-credential\n")
    (home / "lunar_http_token").write_text("token-credential\n")
    (home / "lunar_store_url").write_text("postgresql://u:credential@h/d\n")
    config = loaded("http: {host: 0.0.0.0}")
    found = ["token-credential", "sk-credential", "postgresql://u:credential@h/d"]
    assert config_file.secrets(config) == found
    monkeypatch.setenv("LUNAR_HTTP_TOKEN", "token-environment")
    assert config_file.secrets(config_file.load())[0] == "token-environment"


@pytest.mark.parametrize("text", ["models: [a]", "model: x", "models: {default: 3}", "http: 4"])
def test_a_broken_section_is_complained_about_and_not_filled(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ambient")
    monkeypatch.setenv("LUNAR_HTTP_TOKEN", "token")
    (problem,) = problems(text)
    assert "must be a mapping of keys" in problem


SECRET = "model:\n  api_key: sk-in-the-file\n"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_the_address_of_the_database_is_one(mode: int) -> None:
    [problem] = problems("store:\n  url: postgresql://u:p@h/d\n", mode)
    assert problem.startswith("config.yaml:2: store.url: others can read this file")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_in_a_file_that_others_can_read(mode: int) -> None:
    assert problems(SECRET, mode) == [
        "config.yaml:2: model.api_key: others can read this file, and it holds a secret; "
        "run: chmod 600 config.yaml"
    ]


def test_a_secret_in_a_file_of_our_own() -> None:
    assert config_file.secrets(loaded(SECRET)) == ["sk-in-the-file"]


@pytest.mark.parametrize(
    "text",
    ["model: {api_key: {env: HOME}}", "model: {api_key: null}", "model: {api_key: ''}", "http: {port: 1}"],
)
def test_a_file_without_a_secret_may_be_read_by_all(text: str) -> None:
    wrote(text, mode=0o644)
    config_file.load()


def test_a_secret_from_a_variable_is_not_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNAR_MODEL__API_KEY", "sk-variable")
    wrote("model: {api_key: null}", mode=0o644)
    assert config_file.secrets(config_file.load()) == ["sk-variable"]
