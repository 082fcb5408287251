"""The configured agents: each one's runner, and what the router must know of it."""

from __future__ import annotations

import asyncio

from gateway import counters
from gateway.agent.attachments import Attachments
from gateway.agent.catalogue import Catalogue
from gateway.agent.content_parts import ContentParts
from gateway.agent.models import Models
from gateway.agent.runner import AgentRunner
from gateway.agent.tools import Toolbox
from gateway.config import Agent as Settings
from gateway.config import Config, Route
from gateway.errors import ConfigError
from gateway.lane import Lane
from gateway.ledger import Ledger
from gateway.router import Agent
from gateway.rules import Rules
from session import ids
from session.ids import AgentId, SessionId
from session.protocols import SharedStore, TranscriptStore

PUSHED = frozenset({"telegram"})  # providers whose replies count as open until they are delivered


def routes(config: Config) -> list[Route]:
    """Which agent answers whom: the configured routes, and what `http.agents` says of web clients."""
    return [*config.routes, Route(provider="webchat", agent=config.http.agents[0])]


class Agents:
    """Builds agents from a configuration; `slots` bounds the turns of all of them together."""

    def __init__(
        self,
        store: TranscriptStore,
        models: Models,
        slots: asyncio.Semaphore,
        catalogue: Catalogue,
        shared: SharedStore | None = None,
    ) -> None:
        """`shared`: the store, where other nodes use it, too."""
        self._shared = shared
        self.ledger = Ledger(store)
        store.timed = counters.append_timed
        self._store = store
        self._models = models
        self._slots = slots
        self._catalogue = catalogue
        self._seeing = ContentParts(Attachments(store.data_dir))

    def build(self, config: Config, slots: asyncio.Semaphore | None = None) -> dict[str, Agent]:
        """Each agent by name, with other slots from now on where given; raises `ConfigError`."""
        agents = {name: self._agent(name, agent, config) for name, agent in config.agents.items()}
        self._slots = slots or self._slots
        self.ledger.limit({name: agent.budget for name, agent in config.agents.items()})
        return agents

    def _agent(self, name: str, settings: Settings, config: Config) -> Agent:
        models = self._models.of_agent(name, (settings.model, *settings.fallback))
        runner = AgentRunner(str(settings.system_prompt), models, self._toolbox(name, settings), self._seeing)
        rules = Rules(settings.history_turns, config.queue.mode, settings.summaries)

        def lane(session: SessionId) -> Lane:
            _, peer = ids.parse(session)
            mine = rules._replace(push=peer.provider in PUSHED)
            account = self.ledger.account(session)
            return Lane(session, self._store, runner, self._slots, mine, account=account, shared=self._shared)

        return Agent(AgentId(name), models, lane, lambda: self._models.known(settings.model))

    def _toolbox(self, name: str, settings: Settings) -> Toolbox:
        if problems := [why for entry in settings.tools if (why := self._catalogue.problem(entry))]:
            raise ConfigError([f"agents.{name}.tools: {why}" for why in problems])
        return self._catalogue.toolbox(settings.tools)
