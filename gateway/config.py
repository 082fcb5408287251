"""config.yaml, environment and credentials -> one frozen `Config`; every error names its place."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    model_validator,
)

NAME = r"^[a-z0-9_]+$"

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value.strip())):
        try:
            return timedelta(**{_UNITS[found[2]]: float(found[1])})
        except OverflowError:
            raise ValueError("must be a shorter time") from None
    if isinstance(value, timedelta):
        return value
    raise ValueError("must be a number with a unit, such as 20s, 500ms or 5m")


def _secret(value: object) -> object:
    match value:
        case {"env": str(name), **rest} if not rest:
            if not (found := os.environ.get(name)):
                raise ValueError(f"the environment has no {name}")
            return found.strip()
        case {"credential": str(name), **rest} if not rest:
            if not (found := credential(name)):
                raise ValueError(f"there is no text in $CREDENTIALS_DIRECTORY/{name}")
            return found
        case str() if not value.strip():
            return None  # an empty token must never count as one
        case str() | SecretStr() | None:
            return value
    raise ValueError("must be a text (in quotes), {env: NAME} or {credential: name}")


def _whole_number(value: object) -> object:
    if value is True or value is False:  # which pydantic would take for 1 and 0
        raise ValueError("must be a whole number")
    return value


def credential(name: str) -> str | None:
    """The content of a file in `$CREDENTIALS_DIRECTORY`, or None; raises `ValueError` for a path."""
    if "/" in name or name.startswith("."):
        raise ValueError("must be the plain name of a file in $CREDENTIALS_DIRECTORY")
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    try:
        return Path(directory, name).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _http_url(value: str | None) -> str | None:
    if value is not None and not re.match(r"https?://[^/\s]+", value):
        raise ValueError("must begin with http:// or https:// and a host")
    return value


def _origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#@]+", value.rstrip("/")):
        raise ValueError("must be a scheme and a host, such as https://chat.example.org")
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _peer_name(value: object) -> object:
    if isinstance(value, int | str) and re.fullmatch(r"-?\d+|@\w+", str(value)):
        return str(value)
    raise ValueError("must be the id of a person or group, such as 123456, or a name such as @hao")


Origin = Annotated[str, AfterValidator(_origin)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Secret = Annotated[SecretStr | None, BeforeValidator(_secret)]
HttpUrl = Annotated[str | None, AfterValidator(_http_url)]
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _emptied(cls, data: Any) -> Any:
        return {} if data is None else data  # a section whose keys were all deleted


class Http(_Section):
    """The one HTTP port."""

    host: str = "127.0.0.1"
    port: WholeNumber = Field(default=8420, ge=0, le=65535)
    token: Secret = None
    allowed_origins: tuple[Origin, ...] = ()
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    agents: tuple[str, ...] = ("main",)

    @model_validator(mode="after")
    def _closed(self) -> Http:
        if self.token is None and not _is_loopback(self.host):
            raise ValueError(
                f"http.token: anybody who can reach {self.host} could use the gateway: set a token "
                "(LUNAR_HTTP_TOKEN), or bind to 127.0.0.1"
            )
        return self


class Model(_Section):
    """A model behind an OpenAI-compatible API."""

    base_url: HttpUrl = None
    name: str = "auto"
    api_key: Secret = None


class Agent(_Section):
    """Who answers."""

    system_prompt: str = (
        "You are a helpful assistant. Answer in the language of the person, briefly and plainly."
    )
    model: str = "default"
    history_turns: WholeNumber = Field(default=20, ge=1, le=1000)
    tools: tuple[str, ...] = ("get_current_datetime",)


class Queue(_Section):
    """What happens to messages that arrive while a turn runs."""

    mode: Literal["collect", "each"] = "collect"
    running: WholeNumber = Field(default=64, ge=1, le=10_000)


class Cli(_Section):
    """The Unix socket."""

    socket: Path | None = None
    group: str | None = None
    operators: tuple[str, ...] = ()


class Webchat(_Section):
    """The chat page and its WebSocket."""

    enabled: bool = True


class Telegram(_Section):
    """A Telegram bot; on as soon as there is a token."""

    enabled: bool = True
    bot_token: Secret = None
    api_url: HttpUrl = "https://api.telegram.org"
    mode: Literal["polling", "webhook"] = "polling"
    webhook_url: HttpUrl = None
    allow: tuple[Annotated[str, BeforeValidator(_peer_name)], ...] | None = None
    streaming: Literal["edit", "draft", "off"] = "edit"
    groups: Literal["addressed", "all"] = "addressed"
    group_context: WholeNumber = Field(default=0, ge=0, le=50)

    @model_validator(mode="after")
    def _reachable(self) -> Telegram:
        if self.mode == "webhook" and not self.webhook_url:
            raise ValueError(
                "channels.telegram.webhook_url: mode webhook needs the address at which Telegram reaches "
                "this gateway, such as https://chat.example.org"
            )
        return self

    @property
    def active(self) -> bool:
        """Whether there is a bot to run."""
        return self.enabled and self.bot_token is not None


class Channels(_Section):
    """How people reach us."""

    cli: Cli = Cli()
    webchat: Webchat = Webchat()
    telegram: Telegram = Telegram()


class Config(_Section):
    """Everything the daemon is told. Paths are absolute once it was loaded."""

    data_dir: Path = Path("./data")
    drain: Duration = timedelta(seconds=20)
    http: Http = Http()
    models: dict[Annotated[str, Field(pattern=NAME)], Model] = {"default": Model()}
    agents: dict[Annotated[str, Field(pattern=NAME)], Agent] = {"main": Agent()}
    queue: Queue = Queue()
    channels: Channels = Channels()

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        models = {} if data.get("models") is None else data["models"]
        if "model" in data and isinstance(models, Mapping):
            if "default" in models:
                raise ValueError("model: is short for models.default: write one of them, not both")
            models = {"default": data.pop("model"), **models}
        agents = {} if data.get("agents") is None else data["agents"]
        data["models"] = {"default": {}, **models} if isinstance(models, Mapping) else models
        data["agents"] = {"main": {}, **agents} if isinstance(agents, Mapping) else agents
        return data

    @model_validator(mode="after")
    def _whole(self) -> Config:
        for name, agent in self.agents.items():
            if agent.model not in self.models:
                raise ValueError(f"agents.{name}.model: there is no models.{agent.model}")
        for name in self.http.agents:
            if name not in self.agents:
                raise ValueError(f"http.agents: there is no agents.{name}")
        return self

    @property
    def socket(self) -> Path:
        """Where the Unix socket is, as daemon and clients both compute it."""
        from channels.cli.address import socket_path

        return socket_path(self.channels.cli.socket, self.data_dir)
