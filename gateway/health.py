"""Whether the gateway lives (`/healthz`) and whether people can be served (`/readyz`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


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


class Health:
    """Asked by the HTTP port and by `lunar status`; holds no state but `draining`."""

    def __init__(self, store: Storing, channels: Failing, models: Failing) -> None:
        self.draining = False
        self._store = store
        self._channels = channels
        self._models = models

    def live(self) -> Verdict:
        """Whether what we acknowledge is stored; that the loop turns is shown by answering at all."""
        why = {"store": self._store.fault} if self._store.fault else {}
        return Verdict(not why, why)

    def ready(self) -> Verdict:
        """Whether a message that comes now will be taken and answered."""
        why = dict(self.live().why)
        why.update({f"channel {name}": fault for name, fault in self._channels.faults.items()})
        why.update({f"model {name}": fault for name, fault in self._models.faults.items()})
        if self.draining:
            why["gateway"] = "shutting down"
        return Verdict(not why, why)
