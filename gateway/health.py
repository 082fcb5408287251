"""Whether the gateway lives (`/healthz`) and whether people can be served (`/readyz`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from gateway.redaction import known


class Verdict(NamedTuple):
    """Yes or no, and for each part that does not work, why."""

    ok: bool
    why: dict[str, str]


class Storing(Protocol):
    """What health must know of the store."""

    fault: str | None


class Failing(Protocol):
    """Anything that knows which of its parts do not work."""

    @property
    def faults(self) -> Mapping[str, str]:
        """Why, by name."""


class Modelling(Failing, Protocol):
    """What health must know of the models: `gateway.agent.models.Models`."""

    @property
    def remarks(self) -> Mapping[str, str]:
        """Why, by name, of those in whose place others answer."""


class Health:
    """Asked by the HTTP port and by `lunar status`; holds no state but `draining`.

    `remarks`: trouble that keeps nobody from being served, such as a configuration that was not taken over.
    """

    def __init__(self, store: Storing, channels: Failing, models: Modelling) -> None:
        self.draining = False
        self.remarks: Mapping[str, str] = {}  # set once by whoever has any: `gateway.reload.Reload`
        # What operators may wonder at while all is well, by channel; set once: `Supervisor.notes`.
        self.notes: Callable[[], Mapping[str, str]] = dict
        self.nodes: object | None = None  # set once by the daemon, where other nodes share the store
        self._store = store
        self._channels = channels
        self._models = models

    def live(self) -> Verdict:
        """Whether what we acknowledge is stored; that the loop turns is shown by answering at all.

        A database that is away is no fault of this process: no restart would help.
        """
        why = {} if self.nodes else self._stored()
        return Verdict(not why, why)

    def _stored(self) -> dict[str, str]:
        return {"store": known.text(self._store.fault)} if self._store.fault else {}

    def ready(self) -> Verdict:
        """Whether a message that comes now will be taken and answered."""
        why = self._stored()
        why.update({f"channel {name}": fault for name, fault in self._channels.faults.items()})
        why.update({f"model {name}": fault for name, fault in self._models.faults.items()})
        if self.draining:
            why["gateway"] = "shutting down"
        spared = {f"model {name}": fault for name, fault in self._models.remarks.items()}
        told = {**why, **spared, **self.remarks}  # in the words of servers, of libraries, of people's files
        return Verdict(not why, {name: known.text(reason) for name, reason in told.items()})

    def line(self, channels: Mapping[str, str]) -> str:
        """How it is in one line, as `systemctl status` shows it; `channels`: each one's state by its name."""
        others = {name: why for name, why in self.ready().why.items() if not name.startswith("channel ")}
        return known.text("; ".join(f"{name}: {how}" for name, how in {**others, **channels}.items()))
