"""What the gateway says about itself: `/status` to a person, `lunar status` to an operator."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from gateway import log
from gateway.disk import Disk
from gateway.health import Health
from gateway.redaction import known
from gateway.turn import ContextUse
from session import events, ids
from session.conversation import Conversation
from session.ids import SessionId
from session.window import Exchange

_MOST_ROWS = 8
_ERRORS = 5
_BYTES_A_TOKEN = 4
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Labelling(Protocol):
    """What may be said of the models: `gateway.agent.models.Models`."""

    def label(self, name: str) -> str:
        """The model's name as people see it."""

    def told(self, name: str) -> str:
        """The same, and which one answers in its place while it does not."""

    def __contains__(self, name: str) -> bool:
        """Whether a model of this name is configured."""

    def is_demo(self, name: str) -> bool:
        """Whether the built-in demo model answers."""


class Stating(Protocol):
    """Anything that knows how its parts are."""

    @property
    def states(self) -> Mapping[str, str]:
        """How each is, by name."""


class Tooled(Stating, Protocol):
    """Functions and MCP servers: `gateway.agent.catalogue.Catalogue`."""

    @property
    def public(self) -> Mapping[str, str]:
        """How each is, without the paths and addresses that are no business of the people who chat."""


class Channels(Stating, Protocol):
    """The channels: `gateway.supervise.Supervisor`."""

    @property
    def connections(self) -> Mapping[str, int]:
        """How many clients are connected, by channel."""


class Accounting(Protocol):
    """Who knows what was used: `gateway.ledger.Ledger`."""

    async def today(self, session: SessionId) -> str:
        """What the session used today, for people; raises `OSError`."""


class Sharing(Protocol):
    """Who shares the store: `gateway.nodes.Nodes`."""

    @property
    def name(self) -> str:
        """This node's."""

    @property
    def names(self) -> list[str]:
        """Those of the nodes that live, this one's included."""

    @property
    def leases(self) -> int:
        """How many sessions this node runs the turns of."""


class Working(Protocol):
    """A lane, as far as it is told of."""

    session: ids.SessionId
    context: ContextUse | None

    @property
    def working(self) -> bool:
        """Whether a turn runs, or waits for its slot."""

    @property
    def has_slot(self) -> bool:
        """Whether a turn runs."""

    @property
    def waiting(self) -> int:
        """How many messages wait for the next turn."""

    @property
    def conversation(self) -> Conversation:
        """What is known of the session."""


class Sources(NamedTuple):
    """Whom to ask; `context` gives a model's context size in tokens, where it is configured."""

    disk: Disk
    channels: Channels
    usage: Accounting
    context: Callable[[str], int | None]


class About:
    """Looks at the running gateway; `agents` gives each agent's configured model name."""

    def __init__(
        self, version: str, agents: dict[str, str], models: Labelling, health: Health, notice: str
    ) -> None:
        self._version = version
        self.agents = agents  # another one when the configuration was read again
        self._models = models
        self._health = health
        self._notice = notice
        self._started = time.monotonic()
        self.http = ""  # the address of the HTTP port; set once that is known
        self.sources: Sources | None = None  # set once by the daemon
        self.tools: Tooled | None = None  # set once by the daemon: `gateway.agent.catalogue.Catalogue`
        self.nodes: Sharing | None = None  # set once by the daemon, where other nodes share the store
        # Set while a push channel runs: `channels.telegram.channel.TelegramChannel.figures`.
        self.telegram: Callable[[], dict[str, float | str | None]] | None = None

    # -- to a person -----------------------------------------------------------------------------

    async def session(self, lane: Working) -> list[tuple[str, str]]:
        """The rows of `/status`: at most eight, for the person who asks."""
        agent, _ = ids.parse(lane.session)
        chosen = lane.conversation.chosen_model
        model = chosen if chosen and chosen in self._models else self.agents[agent]
        rows = [
            ("Agent", f"{agent}, in session {lane.session}"),
            ("Model", self._models.told(model)),
            ("Context", self._context(lane, model)),
            ("Queue", _queue(lane)),
        ]
        if self.sources:
            rows.append(("Today", await _today(self.sources, lane.session)))
        rows += [("Up for", duration(time.monotonic() - self._started) + self._among()), self._channels()]
        if tools := self.tools.public if self.tools else {}:
            rows.append(("Tools", "; ".join(f"{name}: {state}" for name, state in tools.items())))
        elif self._models.is_demo(model):
            rows.append(("Demo", self._notice))
        return rows[:_MOST_ROWS]

    def _context(self, lane: Working, model: str) -> str:
        """What the last request took, as its server or our estimate has it; else what the next one would."""
        size = self.sources.context(model) if self.sources else None
        window = lane.conversation.window
        tokens = sum(map(_tokens, window.before("")))
        if lane.context:
            tokens, size = lane.context.tokens, lane.context.limit or size
        messages = "1 earlier message" if window.size == 1 else f"{window.size} earlier messages"
        about = f"{messages}, about {tokens:,}"
        return f"{about} of {size:,} tokens ({tokens / size:.0%})" if size else f"{about} tokens"

    def _among(self) -> str:
        """Which node answers, where there are several."""
        return f", as node {self.nodes.name}, one of {len(self.nodes.names)}" if self.nodes else ""

    def _channels(self) -> tuple[str, str]:
        trouble = sorted(name for name in self._health.ready().why if not name.startswith("tools."))
        if self.telegram and (failed := self.telegram()["failed"]):
            trouble.append(f"{failed} replies could not be delivered in Telegram")
        if trouble:
            return "Trouble", "; ".join(trouble)
        names = sorted(self.sources.channels.states) if self.sources else []
        return "Channels", f"{', '.join(names)}: ready" if names else "ready"

    # -- to an operator --------------------------------------------------------------------------

    async def report(self, lanes: Callable[[], list[Working]]) -> dict[str, Any]:
        """The data of `lunar status`."""
        sessions, space = await self.sources.disk.look() if self.sources else (0, {})
        return {
            **self.gateway(lanes),
            "sessions_today": sessions,
            "disk": space,
            "last_errors": log.recent(_ERRORS),
        }

    def gateway(self, lanes: Callable[[], list[Working]]) -> dict[str, Any]:
        """The part of it that is at hand at once."""
        verdict, working = self._health.ready(), lanes()
        running = sum(lane.has_slot for lane in working)
        data = {
            "version": self._version,
            "pid": os.getpid(),
            "http": self.http,
            "uptime": duration(time.monotonic() - self._started),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "memory_bytes": _memory(),
            "ready": verdict.ok,
            "trouble": verdict.why,
            "agents": {name: self._models.label(model) for name, model in self.agents.items()},
            "demo": any(self._models.is_demo(model) for model in self.agents.values()),
            "demo_notice": self._notice,
            "sessions_in_memory": len(working),
            "turns_running": running,
            "turns_waiting": sum(lane.working for lane in working) - running,
            "messages_waiting": sum(lane.waiting for lane in working),
            "tools": dict(self.tools.states) if self.tools else {},
            "channels": dict(self.sources.channels.states) if self.sources else {},
            "connections": dict(self.sources.channels.connections) if self.sources else {},
            "telegram": self.telegram() if self.telegram else None,
            "store": self._store(),
        }
        told: dict[str, Any] = known.value(data)  # the states are in the words of servers and libraries
        return told

    def _store(self) -> dict[str, Any] | None:
        """What there is to say of a store that other nodes share."""
        if (nodes := self.nodes) is None:
            return None
        return {"kind": "postgresql", "node": nodes.name, "leases": nodes.leases, "nodes": nodes.names}


async def _today(sources: Sources, session: SessionId) -> str:
    try:
        return await sources.usage.today(session)
    except OSError:
        return "not known: the transcript cannot be read just now"


def _tokens(exchange: Exchange) -> int:
    """About as many as the exchange takes before the model."""
    said = (*exchange.messages, *exchange.steps)
    return sum(len(events.to_json(event)) for event in said) // _BYTES_A_TOKEN


def _queue(lane: Working) -> str:
    running = "a reply is being written" if lane.working else "idle"
    return f"{running}, {lane.waiting} waiting" if lane.waiting else running


def _memory() -> int:
    """Resident bytes of this process (`/proc/self/statm`)."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE


def duration(seconds: float) -> str:
    """A span of time in the largest two units that it has, such as `2 h 5 min`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number][:2]
    return " ".join(shown) or "0 s"
