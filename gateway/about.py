"""What the gateway says about itself: `/status` to a person, `lunar status` to an operator."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from gateway.health import Health
from session import ids

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Labelling(Protocol):
    """What may be said of the models: `gateway.agent.models.Models`."""

    def label(self, name: str) -> str:
        """The model's name as people see it."""

    def is_demo(self, name: str) -> bool:
        """Whether the built-in demo model answers."""


class Working(Protocol):
    """A lane, as far as it is told of."""

    session: ids.SessionId

    @property
    def working(self) -> bool:
        """Whether a turn runs."""

    @property
    def waiting(self) -> int:
        """How many messages wait for the next turn."""

    @property
    def history(self) -> int:
        """How many earlier messages the model sees."""


class About:
    """Looks at the running gateway; `agents` gives each agent's configured model name."""

    def __init__(
        self, version: str, agents: dict[str, str], models: Labelling, health: Health, notice: str
    ) -> None:
        self._version = version
        self._agents = agents
        self._models = models
        self._health = health
        self._notice = notice
        self._started = time.monotonic()
        # Set while a push channel runs: `channels.telegram.channel.TelegramChannel.figures`.
        self.telegram: Callable[[], dict[str, float | str | None]] | None = None

    def session(self, lane: Working) -> list[tuple[str, str]]:
        """The rows of `/status`: at most eight, for the person who asks."""
        agent, _ = ids.parse(lane.session)
        model = self._agents[agent]
        rows = [
            ("Session", lane.session),
            ("Agent", agent),
            ("Model", self._models.label(model)),
            ("Context", f"{lane.history} earlier messages"),
            ("Queue", _queue(lane)),
            ("Up for", duration(time.monotonic() - self._started)),
        ]
        if self._models.is_demo(model):
            rows.append(("Demo", self._notice))
        trouble = sorted(self._health.ready().why)
        if self.telegram and (failed := self.telegram()["failed"]):
            trouble.append(f"{failed} replies could not be delivered in Telegram")
        if trouble:
            rows.append(("Trouble", "; ".join(trouble)))
        return rows

    def gateway(self, lanes: Callable[[], list[Working]]) -> dict[str, Any]:
        """The data of `lunar status`."""
        verdict, working = self._health.ready(), lanes()
        return {
            "version": self._version,
            "pid": os.getpid(),
            "uptime": duration(time.monotonic() - self._started),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "memory_bytes": _memory(),
            "ready": verdict.ok,
            "trouble": verdict.why,
            "agents": {name: self._models.label(model) for name, model in self._agents.items()},
            "demo": any(self._models.is_demo(model) for model in self._agents.values()),
            "demo_notice": self._notice,
            "sessions_in_memory": len(working),
            "turns_running": sum(lane.working for lane in working),
            "messages_waiting": sum(lane.waiting for lane in working),
            "telegram": self.telegram() if self.telegram else None,
        }


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
