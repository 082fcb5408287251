"""Where the configuration is found, and how file, environment and credentials become one `Config`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from channels.cli.address import SocketPathTooLong
from gateway.config import Config, PromptFile
from gateway.config_channels import Http
from gateway.config_place import find
from gateway.config_problem import PREFIX, KeyPath, Places, explained, located
from gateway.config_secrets import exposed, filled, secrets
from gateway.errors import ConfigError

__all__ = ["Loaded", "Source", "find", "listening", "load", "read", "resolve", "secrets", "settle"]

# Ours, but no keys of the configuration.
_NOT_KEYS = {"LUNAR_CONFIG", "LUNAR_HTTP_TOKEN", "LUNAR_STORE_URL"}


class Source(NamedTuple):
    """What was read, and from where."""

    data: dict[str, Any]
    places: Places


class Loaded(NamedTuple):
    """The configuration, where each value was written, and what was written there."""

    config: Config
    places: Places
    data: dict[str, Any]


def load(explicit: str | None = None) -> Config:
    """Find, read and check the configuration; raises `ConfigError` with every problem."""
    return resolve(read(find(explicit)))


def read(file: Path | None) -> Source:
    """Read the file and lay the environment's `LUNAR_…` variables over it; raises `ConfigError`."""
    data: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {}
    if file is not None:
        data = _parsed(file, _text(file), lines)
    variables = _overlay(data)
    return Source(data, Places(file, lines, variables))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{file}:{line}: is not UTF-8; save the file as UTF-8"]) from error
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from error


def _parsed(file: Path, text: str, lines: dict[KeyPath, int]) -> dict[str, Any]:
    try:
        node = yaml.compose(text, _UniqueKeys)
        data = yaml.load(text, _UniqueKeys) if node else {}
        _mark(node, (), lines)
    except yaml.YAMLError as error:
        raise ConfigError([_yaml_problem(file, text, error)]) from error
    except RecursionError as error:
        raise ConfigError([f"{file}: is nested too deeply"]) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError([f"{file}:1: must be a mapping of keys, such as `data_dir: ./data`"])
    return data


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key that is written twice, and says where a value makes no sense."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError):  # 2020-13-45, or a number of 5,000 digits
            raise yaml.constructor.ConstructorError(
                None, None, "there is no such number or date; put it in quotes", node.start_mark
            ) from None
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise yaml.constructor.ConstructorError(
                None, None, "the text holds half a character; write the whole one", node.start_mark
            )
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` is written twice; keep one of them", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _yaml_problem(file: Path, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else text[: getattr(error, "position", 0)].count("\n") + 1
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    plain = next((words for sign, words in _PLAIN.items() if sign in problem), problem)
    return f"{file}:{line}: not valid YAML: {plain}"


# PyYAML's words, and what they mean; its words about aliases and tags would repeat the value.
_PLAIN = {
    "\\t": "a tab is used for indentation; use spaces, two for each level",
    "expected <block end>": "the indentation does not fit the lines above, or a `-` or `:` is missing; "
    "begin all keys of a section in the same column",
    "expected <document start>": "the indentation does not fit the lines above, or a `:` is missing; "
    "begin all keys of a section in the same column",
    "could not find expected ':'": "a `:` is missing behind a key, here or in the line above; "
    "write `key: value`",
    "mapping values are not allowed": "a second `:` in one line; put the value in quotes, or on a new line",
    "but found another document": "a file holds one configuration; `---` begins a second one",
    "found undefined alias": "a value that begins with `*` must be in quotes",
    "constructor for the tag": "a value that begins with `!` must be in quotes",
    "found undefined tag handle": "a value that begins with `!` must be in quotes",
    "special characters are not allowed": "a control character is in the file",
}


def _mark(node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, str(key.value))] = key.start_mark.line + 1
            _mark(value, (*path, str(key.value)), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _mark(value, (*path, index), lines)


def _overlay(data: dict[str, Any]) -> dict[KeyPath, str]:
    variables: dict[KeyPath, str] = {}
    for variable, text in sorted(os.environ.items()):
        if not variable.startswith(PREFIX) or variable in _NOT_KEYS or variable.startswith("LUNAR_TEST_"):
            continue
        if not text.strip():
            continue
        path = tuple(part.lower() for part in variable[len(PREFIX) :].split("__"))
        variables[path] = variable
        section = data
        for part in path[:-1]:
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[path[-1]] = _value(text)
    return variables


def _value(text: str) -> Any:
    if text[:1] not in ("[", "{"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def resolve(source: Source) -> Config:
    """Check what was read and make every path absolute; raises `ConfigError`."""
    return settle(source).config


def settle(source: Source) -> Loaded:
    """The same, with where each value comes from; raises `ConfigError`."""
    data, given = filled(source.data)
    places = source.places._replace(variables={**given, **source.places.variables})
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explained(error.errors(), places)) from None
    if problems := exposed(source.data, source.places):
        raise ConfigError(problems)
    base = places.file.resolve().parent if places.file else Path.cwd()
    cli = config.channels.cli
    socket = Path(os.path.abspath(base / os.path.expanduser(cli.socket))) if cli.socket else None
    channels = config.channels.model_copy(update={"cli": cli.model_copy(update={"socket": socket})})
    data_dir = Path(os.path.abspath(base / os.path.expanduser(config.data_dir)))
    try:
        config = _settled(config, base).model_copy(update={"data_dir": data_dir, "channels": channels})
        _ = config.socket
    except ConfigError as error:
        raise ConfigError([located(problem, places) for problem in error.problems]) from error
    except SocketPathTooLong as error:
        raise ConfigError([located(str(error), places)]) from error
    return Loaded(config, places, data)


def listening(source: Source) -> Http:
    """Where HTTP is to be, whatever else is written there and without the secrets; raises `ConfigError`."""
    http = source.data.get("http")
    place = {key: http[key] for key in ("host", "port") if key in http} if isinstance(http, dict) else {}
    try:
        return Http.model_validate({**place, "token": "one that the service knows"})
    except ValidationError as error:
        problems = error.errors()
        for problem in problems:
            problem["loc"] = ("http", *problem["loc"])
        raise ConfigError(explained(problems, source.places)) from None


def _settled(config: Config, base: Path) -> Config:
    """Prompts read from their files, and the paths of tools made absolute; raises `ConfigError`."""
    agents = {}
    for name, agent in config.agents.items():
        if isinstance(prompt := agent.system_prompt, PromptFile):
            try:
                text = (base / prompt.file.expanduser()).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "is not UTF-8"
                raise ConfigError([f"agents.{name}.system_prompt.file: {prompt.file}: {why}"]) from None
            agent = agent.model_copy(update={"system_prompt": text})
        agents[name] = agent
    functions = {}
    for name, function in config.tools.functions.items():
        file, _, called = function.call.rpartition(":")
        if file.endswith(".py"):
            place = os.path.abspath(base / os.path.expanduser(file))
            function = function.model_copy(update={"call": f"{place}:{called}"})
        functions[name] = function
    mcp = {
        name: server.model_copy(update={"cwd": Path(os.path.abspath(base / server.cwd.expanduser()))})
        for name, server in config.tools.mcp.items()
    }
    tools = config.tools.model_copy(update={"functions": functions, "mcp": mcp})
    return config.model_copy(update={"agents": agents, "tools": tools})
