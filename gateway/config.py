"""config.yaml, environment and credentials -> one frozen `Config`; every error names its place."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gateway.config_channels import Channels, Http
from gateway.config_values import Duration, HttpUrl, Name, Secret, Section, StoreUrl, WholeNumber


class Price(Section):
    """What a model costs, in money per million tokens."""

    input: float = Field(default=0.0, ge=0)
    """the price of a million tokens that the model reads"""
    output: float = Field(default=0.0, ge=0)
    """the price of a million tokens that it writes"""


class Model(Section):
    """A model behind an OpenAI-compatible API."""

    base_url: HttpUrl = None
    """the root of an OpenAI-compatible API, such as `http://127.0.0.1:11434/v1`; `null` is OpenAI's own"""
    name: str = "auto"
    """the model's name at that server; `auto` looks around, see below"""
    api_key: Secret = None
    """the key for that server"""
    context: WholeNumber | None = Field(default=None, ge=1000)
    """how many tokens the model can see; `null`: not known, and nothing is shortened in time"""
    price: Price | None = None
    """what a million tokens cost (`input`, `output`), in the currency of your budgets"""
    vision: bool = False
    """whether the model is shown pictures, PDFs and text files"""
    reasoning: Literal["hidden", "stored"] = "hidden"
    """whether what the model thinks before it answers is kept in the transcript: `hidden` or `stored`"""


class Allowance(Section):
    """What may be used in a day (UTC)."""

    tokens: WholeNumber | None = Field(default=None, ge=1)
    """at most so many tokens a day; `null` is no limit"""
    money: float | None = Field(default=None, gt=0)
    """at most so much money a day, by the models' `price`; `null` is no limit"""


class Budget(Section):
    """What an agent may use in a day: for each peer, and for all of them together."""

    peer: Allowance = Allowance()
    """for each person or group"""
    agent: Allowance = Allowance()
    """for everybody together"""


class PromptFile(Section):
    """A system prompt kept in a file of its own."""

    file: Path
    """the file that holds the prompt; relative paths are relative to config.yaml"""


class Agent(Section):
    """Who answers."""

    system_prompt: str | PromptFile = (
        "You are a helpful assistant. Answer in the language of the person, briefly and plainly."
    )
    """what the model is told before every conversation: a text, or `{file: PATH}`"""
    model: str = "default"
    """which of `models` answers"""
    fallback: tuple[str, ...] = ()
    """which of `models` are asked, in this order, where that one does not answer"""
    history_turns: WholeNumber = Field(default=20, ge=1, le=1000)
    """how many earlier messages, of both sides, the model sees (1 to 1000); the tool calls between them
    come along"""
    summaries: bool = True
    """whether what no longer fits is summed up for the model"""
    tools: tuple[str, ...] = ("get_current_datetime", "search_transcript", "read_attachment")
    """the tools that the model may use: names, or patterns such as `files__*` (docs/tools.md)"""
    budget: Budget = Budget()
    """what may be used in a day (UTC)"""


class Route(Section):
    """Which agent answers whom; patterns are a shell's (`user:*`), the first match decides."""

    provider: str = "*"
    """whose messages: `cli`, `webchat`, `telegram`; a pattern as of a shell"""
    peer: str = "*"
    """which person or group, such as `user:123456`; a pattern as of a shell"""
    agent: str
    """which of `agents` answers"""


class McpServer(Section):
    """A server of tools (Model Context Protocol): a program to start, or an address."""

    command: tuple[str, ...] = ()
    """the program to start, and its arguments"""
    env: dict[str, Secret] = Field(default_factory=dict)
    """variables for that program; each value is a text, `{env: NAME}` or `{credential: name}`"""
    cwd: Path = Path(".")
    """the folder that it is started in"""
    url: HttpUrl = None
    """the address of a server that runs already"""
    headers: dict[str, Secret] = Field(default_factory=dict)
    """headers for that server; each value is a text, `{env: NAME}` or `{credential: name}`"""
    timeout: Duration = timedelta(seconds=60)
    """how long a call may take"""
    ask: bool | tuple[str, ...] = False
    """whether the person is asked before a call: `true`, `false`, or the names of such tools"""
    idempotent: bool | tuple[str, ...] = False
    """whether a call may be repeated after a crash: `true`, `false`, or the names of such tools"""

    @model_validator(mode="after")
    def _one_way(self) -> McpServer:
        if bool(self.command) == bool(self.url):
            raise ValueError("needs either a command to start or a url, not both")
        return self


class Function(Section):
    """A Python function that a model may call: `file.py:name` or `package.module:name`."""

    call: Annotated[str, Field(pattern=r"^.+:[A-Za-z_][A-Za-z0-9_]*$")]
    """the function: `file.py:name` or `package.module:name`"""
    timeout: Duration = timedelta(seconds=60)
    """how long a call may take"""
    ask: bool = False
    """whether the person is asked before each call"""
    idempotent: bool = False
    """whether a call may be repeated after a crash"""


class Tools(Section):
    """Tools besides the built-in ones; an agent's `tools` says which of them it may call."""

    functions: dict[Name, Function] = Field(default_factory=dict)
    """Python functions, by the names that models know them by"""
    mcp: dict[Name, McpServer] = Field(default_factory=dict)
    """servers of tools (Model Context Protocol), by name"""


class Queue(Section):
    """What happens to messages that arrive while a turn runs."""

    mode: Literal["collect", "each", "steer", "interrupt"] = "collect"
    """messages that arrive while a reply is being written: `collect` answers them together, `each` one by
    one, `steer` puts them before the model at once, `interrupt` stops the reply"""
    running: WholeNumber = Field(default=64, ge=1, le=10_000)
    """how many replies are written at once, over all conversations (1 to 10000)"""


class Retention(Section):
    """What becomes of conversations that nobody goes on with."""

    archive_after: Duration | None = None
    """conversations in which nothing was said for so long, such as `90d`, are compressed; `null`: never;
    nothing is ever deleted"""


class Store(Section):
    """Where transcripts are kept: in files below `data_dir`, or in a PostgreSQL that several nodes share."""

    url: StoreUrl = None
    """the PostgreSQL that several gateways share, such as `postgresql://lunar@db/lunar`; `null`: files below
    `data_dir`"""
    node: str | None = Field(default=None, min_length=1, max_length=100)
    """this gateway's name among them, for people; `null` is the name of its host"""


class Config(Section):
    """Everything the daemon is told. Paths are absolute once it was loaded."""

    data_dir: Path = Path("./data")
    """the folder for transcripts and everything else that must survive a restart"""
    drain: Duration = timedelta(seconds=20)
    """how long a stop waits for replies that are being written; a number with `ms`, `s`, `m`, `h` or `d`"""
    http: Http = Http()
    """the HTTP port"""
    models: dict[Name, Model] = Field(default={"default": Model()})
    """the models, by names of yours; `default` is always there"""
    agents: dict[Name, Agent] = Field(default={"main": Agent()})
    """who answers, by names of yours; `main` is always there"""
    routes: tuple[Route, ...] = ()
    """which agent answers whom, the first that fits decides: a list of `{provider, peer, agent}`"""
    tools: Tools = Tools()
    """tools of your own"""
    queue: Queue = Queue()
    """what happens to messages that arrive while a reply is being written"""
    retention: Retention = Retention()
    """what becomes of old conversations"""
    store: Store = Store()
    """where transcripts are kept"""
    channels: Channels = Channels()
    """how people reach the gateway"""

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
            if unknown := [other for other in agent.fallback if other not in self.models]:
                raise ValueError(f"agents.{name}.fallback: there is no models.{unknown[0]}")
            free = [other for other in (agent.model, *agent.fallback) if self.models[other].price is None]
            for whose in ("peer", "agent"):
                if free and getattr(agent.budget, whose).money is not None:
                    raise ValueError(
                        f"agents.{name}.budget.{whose}.money: models.{free[0]} has no price, so nothing "
                        f"would count; set models.{free[0]}.price.input and .output"
                    )
        for number, route in enumerate(self.routes):
            if route.agent not in self.agents:
                raise ValueError(f"routes.{number}.agent: there is no agents.{route.agent}")
        for name in self.http.agents:
            if name not in self.agents:
                raise ValueError(f"http.agents: there is no agents.{name}")
        return self

    @property
    def socket(self) -> Path:
        """Where the Unix socket is, as daemon and clients both compute it."""
        from channels.cli.address import socket_path

        return socket_path(self.channels.cli.socket, self.data_dir)
