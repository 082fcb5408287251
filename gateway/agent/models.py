"""The configured models by name; each is found and loaded at its first use, or before in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from gateway.agent.breaker import Breaker
from gateway.agent.chain import AgentModels
from gateway.agent.endpoint import Endpoint, Limits, Price
from gateway.agent.model_errors import ModelError, ModelUnreachable
from gateway.config import Model as Settings
from gateway.loading import beside

if TYPE_CHECKING:
    from gateway.agent.model import Model

log = structlog.get_logger(__name__)

AUTO = "auto"
DEMO = "demo"
_OPENAIS_OWN = "gpt-5-mini"  # what `auto` means at OpenAI itself, whose list of models has no useful order
_PATIENCE = 3.0  # seconds that a turn waits at most for local servers to be looked for
_LONGEST_TURN = 600.0  # seconds that a turn may go on asking a model whose settings have changed
_AGAIN = 15.0  # seconds until a model that could not be set up is tried again in the background


class Models:
    """All models of a gateway. `label` never waits; `get` loads the client library at the first need."""

    def __init__(
        self,
        settings: Mapping[str, Settings],
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        self.limits = limits  # of one question, however many models are asked
        # For models that did not answer: which one answered in their place the last time. Kept by `Chain`.
        self.stand_ins: dict[str, str] = {}
        self._settings = settings
        self._breakers: dict[str, Breaker] = {}
        self._agents: dict[str, AgentModels] = {}
        self._loading: dict[str, asyncio.Task[Model]] = {}
        self._loaded: dict[str, Model] = {}
        self._unloaded: dict[str, str] = {}  # why a model could not be set up
        self._retired: dict[asyncio.Task[None], Model] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._settings

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def settings(self, name: str) -> Settings:
        """What is configured under this name."""
        return self._settings[name]

    def breaker(self, name: str) -> Breaker:
        """The breaker of this model."""
        return self._breakers.setdefault(name, Breaker())

    def of_agent(self, agent: str, names: Sequence[str]) -> AgentModels:
        """Where an agent gets its models: its own, then its fallbacks."""
        models = self._agents[agent] = AgentModels(self, names)
        return models

    def told(self, name: str) -> str:
        """The model's name as people see it, and which one answers in its place while it does not."""
        label, stand_in = self.label(name), self.stand_ins.get(name)
        return f"{label} does not answer; {self.label(stand_in)} does in its place" if stand_in else label

    def label(self, name: str) -> str:
        """What people see: the model's name, `demo`, or `auto` while nothing was found yet."""
        if model := self._loaded.get(name):
            return model.label
        return self._settings[name].name

    def is_demo(self, name: str) -> bool:
        """Whether the built-in demo model answers."""
        return self._automatic(name) and self.label(name) == DEMO

    @property
    def faults(self) -> dict[str, str]:
        """For each model that does not work, where no other one stands in: what the operator has to mend."""
        if not self._agents:
            return self._troubles()
        return {name: why for name, why in self._troubles().items() if not self._covered(name)}

    @property
    def remarks(self) -> dict[str, str]:
        """The same of models in whose place others answer."""
        return {name: why for name, why in self._troubles().items() if name not in self.faults}

    def _covered(self, name: str) -> bool:
        """Whether every agent that asks this model has another one that works."""
        troubles = self._troubles()
        chains = [agent.own for agent in self._agents.values() if name in agent.own]
        return all(any(other not in troubles for other in chain) for chain in chains)

    def _troubles(self) -> dict[str, str]:
        passed_over = {
            name: f"passed over for now: {breaker.why}"
            for name, breaker in self._breakers.items()
            if breaker.state != "closed"
        }
        unwell = {name: model.health for name, model in self._loaded.items() if model.health}
        return self._unloaded | passed_over | unwell

    async def get(self, name: str) -> Model:
        """The model of this configured name; raises `ModelError`."""
        if model := self._loaded.get(name):
            return model
        task = self._loading.get(name)
        if task is None:
            task = self._loading[name] = asyncio.create_task(self._load(name), name=f"model {name}")
            task.add_done_callback(lambda task: self._settled(name, task))
        return await asyncio.shield(task)

    def renew(self, settings: Mapping[str, Settings]) -> None:
        """Go on with other settings; a model that they change is set up anew, for turns that begin now."""
        for name in [name for name, old in self._settings.items() if settings.get(name) != old]:
            self._loading.pop(name, None)  # whoever waits for it gets the old one, and nobody else
            self._unloaded.pop(name, None)
            self._breakers.pop(name, None)
            self.stand_ins.pop(name, None)
            if model := self._loaded.pop(name, None):
                self._retire(model)
        self._settings = settings

    def _retire(self, model: Model) -> None:
        task = asyncio.create_task(_closed_later(model), name=f"retired model {model.label}")
        self._retired[task] = model
        task.add_done_callback(lambda task: self._retired.pop(task, None))

    async def known(self, name: str) -> None:
        """Wait, briefly, while the model of this name is still being looked for."""
        if (task := self._loading.get(name)) and self._automatic(name):
            await asyncio.wait({task}, timeout=_PATIENCE)

    def _settled(self, name: str, task: asyncio.Task[Model]) -> None:
        if self._loading.get(name) is task:
            del self._loading[name]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: that is no "exception never retrieved"

    async def warm(self) -> None:
        """Set up those that agents ask, so that the first turn need not wait; tries again until it worked."""
        missing = {name for agent in self._agents.values() for name in agent.own} or set(self._settings)
        while missing:
            for name in sorted(missing):
                try:
                    await self.get(name)
                except ModelError as error:
                    log.warning("a model cannot be set up", used_as=name, error=str(error), again_in=_AGAIN)
                else:
                    missing.discard(name)
            if missing:
                await asyncio.sleep(_AGAIN)

    async def _load(self, name: str) -> Model:
        asked = self._settings[name]
        try:
            model = await (self._found(name) if self._automatic(name) else self._configured(name))
        except ModelError as error:
            if self._settings.get(name) == asked:
                self._unloaded[name] = error.health or str(error)
            raise
        if self._settings.get(name) != asked:
            self._retire(model)
            return model
        self._unloaded.pop(name, None)
        self._loaded[name] = model
        log.info("model ready", model=model.label, used_as=name)
        return model

    def _automatic(self, name: str) -> bool:
        """Whether nothing is configured: then, and only then, we look around."""
        settings = self._settings[name]
        return settings.name == AUTO and settings.base_url is None and settings.api_key is None

    async def _configured(self, name: str) -> Model:
        settings = self._settings[name]
        key = settings.api_key.get_secret_value() if settings.api_key else None
        served = settings.name
        if served == AUTO and settings.base_url is None:
            served = _OPENAIS_OWN
        elif served == AUTO:
            discover = await beside(lambda: import_module("gateway.agent.discover"))
            found = await discover.served_model(settings.base_url, api_key=key, timeout=_PATIENCE)
            if found is None:
                raise ModelUnreachable(
                    f"{settings.base_url} does not list its models",
                    health="the server does not answer /v1/models: is it running? Else write the model's "
                    f"name into models.{name}.name",
                )
            served = found
        endpoint = Endpoint(base_url=settings.base_url, name=served, api_key=key, limits=self.limits)
        return await _made(self._as_configured(name, endpoint))

    def _as_configured(self, name: str, endpoint: Endpoint) -> Endpoint:
        settings = self._settings[name]
        price = Price(settings.price.input, settings.price.output) if settings.price else None
        return replace(endpoint, price=price, keep_reasoning=settings.reasoning == "stored")

    async def _found(self, name: str) -> Model:
        discover = await beside(lambda: import_module("gateway.agent.discover"))
        try:
            async with asyncio.timeout(_PATIENCE):
                endpoint: Endpoint | None = await discover.discover()
        except TimeoutError:
            endpoint = None
        if endpoint is None:
            demo: Model = await beside(lambda: import_module("gateway.agent.demo").demo_model())
            return demo
        return await _made(self._as_configured(name, endpoint))

    async def close(self) -> None:
        """Close every model's connections."""
        for task in (*self._loading.values(), *self._retired):
            task.cancel()
        for model in (*self._loaded.values(), *self._retired.values()):
            await model.close()


async def _made(endpoint: Endpoint) -> Model:
    model: Model = await beside(lambda: import_module("gateway.agent.model").Model(endpoint))
    return model


async def _closed_later(model: Model) -> None:
    """Close a model that nobody asks any more, once the turns that were begun with it are over."""
    await asyncio.sleep(_LONGEST_TURN)
    await model.close()
