"""Where the configuration is found, how it is read, and what is said when it is wrong."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from gateway.config import Config, credential
from gateway.errors import ConfigError

PREFIX = "LUNAR_"
# Ours, but no keys of the configuration.
_NOT_KEYS = {"LUNAR_CONFIG", "LUNAR_HTTP_TOKEN"}
_SECRET_KEYS = {"api_key", "token", "bot_token"}

Path_ = tuple[str | int, ...]


class Source(NamedTuple):
    """What was read: the data, the line of each key, which variable set which key, and from where."""

    data: dict[str, Any]
    lines: dict[Path_, int]
    variables: dict[Path_, str]
    file: Path | None


def find(explicit: str | None) -> Path | None:
    """The configuration file to use; None for the built-in defaults.

    Raises `ConfigError` where one was asked for that does not exist.
    """
    asked = explicit or os.environ.get("LUNAR_CONFIG")
    if asked:
        if not Path(asked).is_file():
            where = "--config" if explicit else "$LUNAR_CONFIG"
            raise ConfigError([f"{asked}: there is no such file ({where} names it)"])
        return Path(asked)
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    places = [Path("config.yaml"), Path(home, "lunar/config.yaml"), Path("/etc/lunar/config.yaml")]
    return next((place for place in (p.expanduser() for p in places) if place.is_file()), None)


def load(explicit: str | None = None) -> Config:
    """Find, read and check the configuration; raises `ConfigError` with every problem."""
    return resolve(read(find(explicit)))


def read(file: Path | None) -> Source:
    """Read the file and lay the environment's `LUNAR_…` variables over it; raises `ConfigError`."""
    data: Any = {}
    lines: dict[Path_, int] = {}
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
            node = yaml.compose(text, _UniqueKeys)
            data = yaml.load(text, _UniqueKeys) if node else {}
        except yaml.YAMLError as error:
            raise ConfigError([_yaml_problem(file, error)]) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"{file}: cannot be read: {error}"]) from error
        if not isinstance(data, dict):
            raise ConfigError([f"{file}:1: must be a mapping of keys, such as `data_dir: ./data`"])
        _mark(node, (), lines)
    variables = _overlay(data)
    return Source(data, lines, variables, file)


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key that is written twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` is written twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _yaml_problem(file: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "\\t" in problem or "'\t'" in problem:
        problem = "a tab is used for indentation; YAML wants spaces"
    place = f"{file}:{mark.line + 1}" if mark else str(file)
    return f"{place}: not valid YAML: {problem}"


def _mark(node: Any, path: Path_, lines: dict[Path_, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, str(key.value))] = key.start_mark.line + 1
            _mark(value, (*path, str(key.value)), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _mark(value, (*path, index), lines)


def _overlay(data: dict[str, Any]) -> dict[Path_, str]:
    variables: dict[Path_, str] = {}
    for variable, text in sorted(os.environ.items()):
        if not variable.startswith(PREFIX) or variable in _NOT_KEYS or variable.startswith("LUNAR_TEST_"):
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
    data = _with_secrets(source.data)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError([_problem(source, detail) for detail in error.errors()]) from None
    if problems := _exposed(source):
        raise ConfigError(problems)
    base = source.file.resolve().parent if source.file else Path.cwd()
    cli = config.channels.cli
    socket = base / cli.socket.expanduser() if cli.socket else None
    return config.model_copy(
        update={
            "data_dir": Path(os.path.abspath(base / config.data_dir.expanduser())),
            "channels": config.channels.model_copy(update={"cli": cli.model_copy(update={"socket": socket})}),
        }
    )


def _with_secrets(data: dict[str, Any]) -> dict[str, Any]:
    """Fill the secrets that the file leaves out from the environment or the credentials directory."""
    key = _ambient("OPENAI_API_KEY")
    base_url = os.environ.get("OPENAI_BASE_URL")
    short = "model" in data
    default = data.get("model") if short else (data.get("models") or {}).get("default", {})
    if not isinstance(default, dict) or not (key or base_url):
        return data
    filled = dict(default)
    if key and filled.get("api_key") is None:
        filled["api_key"] = SecretStr(key)
    if base_url and filled.get("base_url") is None:
        filled["base_url"] = base_url
    if short:
        return {**data, "model": filled}
    models = data.get("models") or {}
    return {**data, "models": {**models, "default": filled}} if isinstance(models, dict) else data


def _ambient(name: str) -> str | None:
    return (os.environ.get(name) or "").strip() or credential(name.lower())


def secrets(config: Config) -> list[str]:
    """Every secret that the configuration holds, for the log to mask."""
    return [model.api_key.get_secret_value() for model in config.models.values() if model.api_key]


def _exposed(source: Source) -> list[str]:
    if source.file is None or not source.file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return []
    return [
        f"{_place(source, path)}: others can read this file, and it holds a secret; "
        f"run: chmod 600 {source.file}"
        for path, line in source.lines.items()
        if path[-1] in _SECRET_KEYS and isinstance(_at(source.data, path), str) and line
        if path not in source.variables
    ]


def _at(data: Any, path: Path_) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _place(source: Source, path: Path_) -> str:
    dotted = ".".join(map(str, path))
    for length in range(len(path), 0, -1):
        if variable := source.variables.get(path[:length]):
            return f"${variable} ({dotted})"
    for length in range(len(path), 0, -1):
        if line := source.lines.get(path[:length]):
            return f"{source.file}:{line}: {dotted}"
    return f"{source.file}: {dotted}" if source.file and dotted else dotted or str(source.file)


def _problem(source: Source, detail: ErrorDetails) -> str:
    path = _written(source, detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "unknown key" + _suggestion(path)
    elif detail["type"] == "model_type":
        message = "must be a mapping of keys"
    elif detail["type"] == "string_pattern_mismatch":
        message = "a name may only have a-z, 0-9 and _"
    where = _place(source, path)
    return f"{where}: {message}" if where else message


def _written(source: Source, loc: Path_) -> Path_:
    """The path as the person wrote it: `model` for `models.default`, no validator's own words."""
    path = tuple(part for part in loc if part != "[key]")
    if path[:2] == ("models", "default") and "model" in source.data:
        path = ("model", *path[2:])
    return path


def _suggestion(path: Path_) -> str:
    known = known_keys(path[:-1])
    near = difflib.get_close_matches(str(path[-1]), known, 1, 0.6)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; known here: {', '.join(known)}" if known else ""


def known_keys(path: Path_) -> list[str]:
    """The keys that the configuration knows below `path`, as people write them."""
    model: Any = Config
    for part in ("models", "default", *path[1:]) if path[:1] == ("model",) else path:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            model = getattr(model, "__args__", (None, None))[1]
            continue
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        model = field.annotation
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    keys = list(model.model_fields)
    return [*keys, "model"] if model is Config else keys
