"""Which store the configuration names, and how it is opened: a database that is away is waited for."""

from __future__ import annotations

import asyncio
import importlib
import socket

import structlog

from gateway.config import Config
from gateway.errors import CannotCreate, ConfigError, Held
from session.errors import StorageError, StoreLocked, StoreUnfit
from session.protocols import SharedStore, TranscriptStore
from session.store import Store

log = structlog.get_logger(__name__)

_AGAIN = 2.0  # seconds until a database that was away is tried again


def shared_store(config: Config) -> SharedStore | None:
    """The store that this gateway shares with others, where there is one; raises `ConfigError`."""
    if config.store.url is None:
        return None
    try:
        postgres = importlib.import_module("session.postgres")
    except ImportError as error:
        raise ConfigError(
            [f"store.url: {error.name} is not installed; run: pip install 'lunar-gateway[postgres]'"]
        ) from error
    name = config.store.node or socket.gethostname()
    store: SharedStore = postgres.PostgresStore(config.store.url.get_secret_value(), config.data_dir, name)
    return store


class Opening:
    """Opens a store at the start of the daemon."""

    def __init__(self, store: TranscriptStore, config: Config) -> None:
        self._store = store
        self._config = config
        self._waits = config.store.url is not None
        self.opened = False

    async def first(self) -> None:
        """Open it, unless its database is away just now. Raises `Held`, `CannotCreate`, `ConfigError`."""
        try:
            await self._open()
        except StorageError as error:
            if not self._waits:
                raise self._cannot(error) from error
            log.warning("the database is away: it is tried again until it is there", error=str(error))
            return
        except StoreUnfit as error:
            raise ConfigError([f"store.url: {error}"]) from error
        except OSError as error:
            raise self._cannot(error) from error
        if isinstance(self._store, Store) and self._store.rebuilt and self._store.maybe_open():
            log.info("open.log was missing or damaged: every session is looked at")

    def _cannot(self, error: OSError) -> CannotCreate:
        return CannotCreate(f"{self._config.data_dir}: {error.strerror}. Choose another data_dir.")

    async def done(self) -> None:
        """Wait until it is open."""
        while not self.opened:
            await asyncio.sleep(_AGAIN)
            try:
                await self._open()
            except (StoreUnfit, OSError, Held) as error:
                log.warning("the database is still away", error=str(error))
            else:
                log.info("the database is there")

    async def _open(self) -> None:
        try:
            await self._store.open()
        except StoreLocked as error:
            raise Held(f"Another gateway is running: {error}.") from error
        except (StoreUnfit, StorageError) as error:
            self._store.fault = str(error)
            raise
        self._store.fault = None
        self.opened = True
        for warning in getattr(self._store, "warnings", ()):  # of a database's settings
            log.warning("the store is less safe than it could be", warning=warning)
