"""The configured models by name; each is found and loaded at its first use, or before in the background."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from gateway.agent.endpoint import Endpoint
from gateway.agent.model_errors import ModelError, ModelUnreachable
from gateway.config import Model as Settings

if TYPE_CHECKING:
    from gateway.agent.model import Model

log = structlog.get_logger(__name__)

AUTO = "auto"
DEMO = "demo"
_OPENAIS_OWN = "gpt-5-mini"  # what `auto` means at OpenAI itself, whose list of models has no useful order
_PATIENCE = 3.0  # seconds that a turn waits at most for local servers to be looked for
_AGAIN = 15.0  # seconds until a model that could not be set up is tried again in the background


class Models:
    """All models of a gateway. `label` never waits; `get` loads the client library at the first need."""

    def __init__(self, settings: Mapping[str, Settings]) -> None:
        self._settings = settings
        self._loading: dict[str, asyncio.Task[Model]] = {}
        self._loaded: dict[str, Model] = {}
        self._unloaded: dict[str, str] = {}  # why a model could not be set up

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
        """For each model that does not work: what the operator has to mend."""
        return self._unloaded | {name: model.health for name, model in self._loaded.items() if model.health}

    async def get(self, name: str) -> Model:
        """The model of this configured name; raises `ModelError`."""
        if model := self._loaded.get(name):
            return model
        task = self._loading.get(name)
        if task is None:
            task = self._loading[name] = asyncio.create_task(self._load(name), name=f"model {name}")
            task.add_done_callback(lambda task: self._settled(name, task))
        return await asyncio.shield(task)

    async def known(self, name: str) -> None:
        """Wait, briefly, while the model of this name is still being looked for."""
        if (task := self._loading.get(name)) and self._automatic(name):
            await asyncio.wait({task}, timeout=_PATIENCE)

    def _settled(self, name: str, task: asyncio.Task[Model]) -> None:
        del self._loading[name]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: that is no "exception never retrieved"

    async def warm(self) -> None:
        """Set all models up, so that the first turn need not wait; tries again until it worked."""
        missing = set(self._settings)
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
        try:
            model = await (self._found() if self._automatic(name) else self._configured(name))
        except ModelError as error:
            self._unloaded[name] = error.health or str(error)
            raise
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
            discover = await asyncio.to_thread(importlib.import_module, "gateway.agent.discover")
            found = await discover.served_model(settings.base_url, api_key=key, timeout=_PATIENCE)
            if found is None:
                raise ModelUnreachable(
                    f"{settings.base_url} does not list its models",
                    health="the server does not answer /v1/models: is it running? Else write the model's "
                    f"name into models.{name}.name",
                )
            served = found
        library = await asyncio.to_thread(importlib.import_module, "gateway.agent.model")
        model: Model = library.Model(Endpoint(base_url=settings.base_url, name=served, api_key=key))
        return model

    async def _found(self) -> Model:
        discover = await asyncio.to_thread(importlib.import_module, "gateway.agent.discover")
        try:
            async with asyncio.timeout(_PATIENCE):
                endpoint: Endpoint | None = await discover.discover()
        except TimeoutError:
            endpoint = None
        name = "gateway.agent.demo" if endpoint is None else "gateway.agent.model"
        library = await asyncio.to_thread(importlib.import_module, name)
        model: Model = library.demo_model() if endpoint is None else library.Model(endpoint)
        return model

    async def close(self) -> None:
        """Close every model's connections."""
        for task in self._loading.values():
            task.cancel()
        for model in self._loaded.values():
            await model.close()
