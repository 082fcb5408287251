"""Builds every object from the configuration in one place; start, run, ordered stop."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import time
from collections import ChainMap
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from channels.cli.address import SocketPathTooLong
from channels.cli.server import CliChannel, UnknownName, user_ids
from channels.connection import House
from channels.webchat.guard import Guard, is_loopback
from channels.webchat.renderer import HtmlRenderer
from channels.webchat.server import Access, Webchat
from gateway import __version__, binding, heap
from gateway.about import About, Sources
from gateway.agent.catalogue import Catalogue
from gateway.agent.demo_texts import DEMO_NOTICE
from gateway.agent.models import Models
from gateway.agents import Agents, routes
from gateway.caretaker import Caretaker
from gateway.collector import Collector
from gateway.commands import COMMANDS
from gateway.config import Config
from gateway.config_file import Loaded
from gateway.config_problem import NOWHERE
from gateway.config_secrets import secrets
from gateway.control import Controls
from gateway.disk import Disk
from gateway.errors import ConfigError
from gateway.health import Health
from gateway.http import HttpChannel
from gateway.nodes import Nodes
from gateway.opening import Opening, shared_store
from gateway.redaction import known
from gateway.reload import Reload
from gateway.retention import Retention
from gateway.router import Router
from gateway.strangers import Strangers
from gateway.supervise import Supervisor
from gateway.systemd import Inherited, Notifier, watch
from session.protocols import TranscriptStore
from session.store import Store

if TYPE_CHECKING:
    from channels.telegram.channel import TelegramChannel

log = structlog.get_logger(__name__)

_AFTER_DRAIN = 20.0  # seconds for what comes after the drain: last words, clients, files


class Daemon:
    """The gateway process. `run` is its whole life."""

    def __init__(
        self,
        config: Config,
        greet: Callable[[str, Path], None] | None = None,
        inherited: Inherited = Inherited(),  # noqa: B008 - immutable
        read: Callable[[], Loaded] | None = None,
    ) -> None:
        self._config = config
        self._inherited = inherited
        self.notifier = Notifier()
        self._greet = greet  # told the address and the data directory, once people can come
        self._shared = shared_store(config)
        self._store: TranscriptStore = self._shared or Store(config.data_dir)
        self._opening = Opening(self._store, config)
        self._models = Models(config.models)
        self._supervisor = Supervisor()
        self._health = Health(self._store, self._supervisor, self._models)
        names = {name: agent.model for name, agent in config.agents.items()}
        self._about = About(__version__, names, self._models, self._health, DEMO_NOTICE)
        self._catalogue = Catalogue(config.tools, self._store, secrets(config))
        slots = asyncio.Semaphore(config.queue.running)
        self._agents = Agents(self._store, self._models, slots, self._catalogue, self._shared)
        self._router = Router(self._store, self._agents.build(config), self._about.session, routes(config))
        self._nodes = Nodes(self._shared, self._router, self._agents.ledger) if self._shared else None
        self._health.nodes = self._about.nodes = self._nodes
        self._retention = Retention(self._router, config.retention.archive_after)
        self._controls = Controls(self._router, self._about)
        self._house = House(self._router, self._controls, HtmlRenderer())
        enabled = config.channels.webchat.enabled
        self._webchat = Webchat(self._house, self._access(config)) if enabled else None
        webchat = [self._webchat] if self._webchat else []
        self._http = HttpChannel(config.http.host, config.http.port, self._health, webchat, self._metrics)
        self._http.adopt(inherited.http)
        inherited.compare(config.http.port)
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._chores: set[asyncio.Task[None]] = set()
        self._cli: CliChannel | None = None  # set by `_start`
        self._telegram: TelegramChannel | None = None  # set by `_go_on`, where there is a bot
        self._strangers = Strangers()
        if config.channels.telegram.active:
            self._controls.strangers = self._strangers
            self._router.approve = self._strangers.approve
        read = read or (lambda: Loaded(config, NOWHERE, {}))
        self._reload = Reload(config, read, self._renew, self.notifier)
        self._health.notes = lambda: self._supervisor.notes
        self._health.remarks = ChainMap(self._reload.remarks, self._catalogue.faults)
        self._about.tools = self._catalogue
        self._about.sources = Sources(
            Disk(config.data_dir, self._shared.listing if self._shared else None),
            self._supervisor,
            self._agents.ledger,
            lambda name: self._models.settings(name).context,
        )
        self._controls.reload = self._reload.again
        self._terminal = os.isatty(2)

    async def _metrics(self) -> bytes:
        metrics = await asyncio.to_thread(importlib.import_module, "gateway.metrics")
        text: bytes = metrics.text(self._about.gateway(lambda: list(self._router.lanes)))
        return text

    def _access(self, config: Config) -> Access:
        http = config.http
        host = self._inherited.host or http.host
        if http.token is None and not is_loopback(host):
            raise ConfigError(
                [
                    f"http.token: lunar.socket listens on {host}, and anybody who can reach it could use the "
                    "gateway: set a token (LUNAR_HTTP_TOKEN), or let it listen on 127.0.0.1"
                ]
            )
        guard = Guard(host, http.allowed_origins, http.trusted_proxies)
        token = http.token.get_secret_value() if http.token else None
        return Access(guard, token, http.agents)

    # -- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, stop in order. Raises `GatewayError` where a start fails."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        try:
            await self._start()
            await self._supervisor.settled()
            self.notifier.ready()
            url = self._about.http = f"http://{self._config.http.host}:{self._http.port}/"
            log.info(
                "ready",
                version=__version__,
                seconds=round(time.perf_counter() - began, 3),
                http=url,
                socket=str(self._config.socket),
                data=str(self._config.data_dir),
                next="type `lunar chat` in another terminal",
            )
            if self._greet:
                self._greet(url, self._config.data_dir)
            self._catalogue.start()
            self._chore(self._go_on())
            self._introducing = self._chore(self._introduce())
            caretaker = Caretaker(self._store, self._router, self._tell)
            self._chore(caretaker.run())
            self._chore(Collector().run())
            self._chore(heap.keep_small())
            self._chore(self._agents.ledger.ready())
            self._chore(watch(self.notifier, caretaker.probe))
            await self._stop.wait()
        finally:
            await self._end()

    def _signalled(self, number: int) -> None:
        if self._stop.is_set():
            log.warning("stopping at once", signal=signal.Signals(number).name)
            self._at_once.set()
        else:
            log.info("stopping", signal=signal.Signals(number).name, drain=str(self._config.drain))
        self._stop.set()

    def _hung_up(self) -> None:
        if self._terminal and not os.isatty(2):
            # Our terminal was closed: nobody asks us to read anything, or can read what we write.
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            self._signalled(signal.SIGHUP)
        else:
            self._chore(self._reload.on_signal())

    def _renew(self, config: Config) -> None:
        """Go on by another configuration; raises `ConfigError`, and then nothing has changed."""
        access = self._access(config) if self._webchat else None
        try:
            operators = user_ids(config.channels.cli.operators)
        except UnknownName as error:
            raise ConfigError([str(error)]) from error
        slots = config.queue.running != self._config.queue.running
        agents = self._agents.build(config, asyncio.Semaphore(config.queue.running) if slots else None)
        self._config = config
        self._models.renew(config.models)
        self._router.renew(agents, routes(config))
        self._about.agents = {name: agent.model for name, agent in config.agents.items()}
        self._retention.after = config.retention.archive_after
        if self._webchat and access:
            self._webchat.access = access
        if self._cli:
            self._cli.operators = operators
        if self._telegram:
            self._telegram.admit(config.channels.telegram.allow)
        self._introducing.cancel()
        self._introducing = self._chore(self._introduce())

    async def _start(self) -> None:
        """The lock first, then the sockets: a second daemon must touch nothing of the first one's."""
        await self._opening.first()
        self._cli = self._socket()
        binding.bind(self._cli)
        binding.bind(self._http, self._config.http.port)
        for channel in (self._cli, self._http):
            self._supervisor.start(channel)

    def _socket(self) -> CliChannel:
        cli = self._config.channels.cli
        try:
            channel = CliChannel(self._config.socket, self._house, cli.group, cli.operators)
        except (UnknownName, SocketPathTooLong) as error:
            raise ConfigError([str(error)]) from error
        if self._inherited.cli is not None:
            channel.adopt(self._inherited.cli)
        return channel

    async def _end(self) -> None:
        self._health.draining = True
        # All at once, so that the unit's TimeoutStopSec is right for every `drain`.
        self.notifier.stopping()
        self.notifier.extend(self._config.drain.total_seconds() + _AFTER_DRAIN)
        self.notifier.status(self._health.line(self._supervisor.states))
        drain = asyncio.create_task(self._router.drain(self._config.drain.total_seconds()))
        at_once = asyncio.create_task(self._at_once.wait())
        await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if not drain.done():
            await self._router.drain(0)
            drain.cancel()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(self._supervisor.stop(), self._catalogue.stop())
        self._agents.ledger.close()
        if self._nodes:
            self._nodes.close()
        await self._models.close()
        await self._store.close()
        log.info("stopped")

    def _attend_telegram(self) -> None:
        from channels.telegram.channel import Settings, TelegramChannel
        from channels.telegram.pairing import FILE, Pairing
        from channels.telegram.shared import Common, journal

        told = self._config.channels.telegram
        assert told.bot_token is not None
        settings = Settings(
            bot_token=told.bot_token.get_secret_value(),
            api_url=told.api_url or "",
            mode=told.mode,
            webhook_url=told.webhook_url,
            allow=told.allow,
            streaming=told.streaming,
            groups=told.groups,
            group_context=told.group_context,
        )
        known.learn([settings.webhook_secret])  # made of the token, and worth as much to whoever finds it
        common = Common(self._shared.state(), self._shared.duty()) if self._shared else None
        pairing = Pairing(journal(common, self._config.data_dir, FILE))
        shown = [(c.name, c.summary) for c in COMMANDS.values() if not c.operators]
        channel = TelegramChannel(settings, self._router, self._config.data_dir, pairing, shown, common)
        self._telegram = channel
        self._strangers.come(pairing)
        self._about.telegram = lambda: channel.figures
        self._router.employ(channel.courier)
        if channel.webhook_path:
            self._http.hook(channel.webhook_path, channel.webhook)
        self._supervisor.start(channel)

    # -- chores ----------------------------------------------------------------------------------

    def _chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, chore: asyncio.Task[None]) -> None:
        self._chores.discard(chore)
        if not chore.cancelled() and chore.exception():
            log.error("a chore broke", exc_info=chore.exception())

    async def _go_on(self) -> None:
        await self._opening.done()
        if self._config.channels.telegram.active:
            # Its library takes a third of a second to import: the others are served meanwhile.
            await asyncio.to_thread(importlib.import_module, "channels.telegram.channel")
            self._attend_telegram()
        resumed = await self._router.resume()
        if resumed:
            log.info("going on with what was left open", sessions=resumed)
        if self._nodes:
            self._chore(self._nodes.run())
        if not self._shared:  # a database keeps all sessions alike
            self._chore(self._retention.run())

    def _tell(self) -> None:
        self.notifier.status(self._health.line(self._supervisor.states))

    async def _introduce(self) -> None:
        await self._models.warm()
        if any(self._models.is_demo(name) for name in self._config.models):
            log.info(DEMO_NOTICE)
