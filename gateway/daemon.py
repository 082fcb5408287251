"""Builds every object from the configuration in one place; start, run, ordered stop."""

from __future__ import annotations

import asyncio
import errno
import importlib
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from channels.cli.address import SocketPathTooLong, UnsafeDirectory
from channels.cli.server import CliChannel, UnknownName
from channels.connection import House
from channels.errors import SocketInUse
from channels.webchat.guard import Guard
from channels.webchat.renderer import HtmlRenderer
from channels.webchat.server import Access, Webchat
from gateway import __version__
from gateway.about import About
from gateway.agent.builtin_tools import BUILTIN
from gateway.agent.demo_texts import DEMO_NOTICE
from gateway.agent.models import Models
from gateway.agent.runner import AgentRunner
from gateway.agent.tools import Toolbox
from gateway.commands import COMMANDS
from gateway.config import Agent as AgentSettings
from gateway.config import Config
from gateway.control import Controls
from gateway.errors import CannotCreate, ConfigError, Held
from gateway.health import Health
from gateway.http import HttpChannel
from gateway.lane import Lane, Rules
from gateway.router import Agent, Router
from gateway.strangers import Strangers
from gateway.supervise import Supervisor
from session import ids
from session.errors import StoreLocked
from session.ids import AgentId, SessionId
from session.store import Store

log = structlog.get_logger(__name__)

PUSHED = frozenset({"telegram"})  # providers whose replies count as open until they are delivered
_SWEEP_SECONDS = 15.0
_PROBE_SECONDS = 2.0


class Daemon:
    """The gateway process. `run` is its whole life."""

    def __init__(self, config: Config, greet: Callable[[str, Path], None] | None = None) -> None:
        self._config = config
        self._greet = greet  # told the address and the data directory, once people can come
        self._store = Store(config.data_dir)
        self._models = Models(config.models)
        self._supervisor = Supervisor()
        self._health = Health(self._store, self._supervisor, self._models)
        names = {name: agent.model for name, agent in config.agents.items()}
        self._about = About(__version__, names, self._models, self._health, DEMO_NOTICE)
        slots = asyncio.Semaphore(config.queue.running)
        agents = {name: self._agent(name, agent, slots) for name, agent in config.agents.items()}
        self._router = Router(self._store, agents, self._about.session)
        self._controls = Controls(self._router, self._about)
        self._house = House(self._router, self._controls, HtmlRenderer())
        webchat = [self._webchat()] if config.channels.webchat.enabled else []
        self._http = HttpChannel(config.http.host, config.http.port, self._health, webchat, self._metrics)
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._chores: set[asyncio.Task[None]] = set()

    def _agent(self, name: str, settings: AgentSettings, slots: asyncio.Semaphore) -> Agent:
        if unknown := [tool for tool in settings.tools if tool not in BUILTIN]:
            known = ", ".join(BUILTIN)
            raise ConfigError([f"agents.{name}.tools: there is no tool {unknown[0]!r}; there are: {known}"])
        toolbox = Toolbox(BUILTIN[tool] for tool in settings.tools)
        runner = AgentRunner(settings.system_prompt, settings.model, self._models, toolbox)
        rules = Rules(settings.history_turns, self._config.queue.mode)

        def lane(session: SessionId) -> Lane:
            _, peer = ids.parse(session)
            mine = rules._replace(push=peer.provider in PUSHED)
            return Lane(session, self._store, runner, slots, mine)

        model = settings.model
        return Agent(
            AgentId(name), lambda: self._models.label(model), lane, lambda: self._models.known(model)
        )

    async def _metrics(self) -> bytes:
        metrics = await asyncio.to_thread(importlib.import_module, "gateway.metrics")
        text: bytes = metrics.text(self._about.gateway(lambda: list(self._router.lanes)))
        return text

    def _webchat(self) -> Webchat:
        http = self._config.http
        guard = Guard(http.host, http.allowed_origins, http.trusted_proxies)
        token = http.token.get_secret_value() if http.token else None
        return Webchat(self._house, Access(guard, token, http.agents))

    # -- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, stop in order. Raises `GatewayError` where a start fails."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        try:
            self._start()
            url = f"http://{self._config.http.host}:{self._http.port}/"
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
            self._chore(self._go_on())
            self._chore(self._introduce())
            self._chore(self._tend())
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

    def _start(self) -> None:
        """The lock first, then the sockets: a second daemon must touch nothing of the first one's."""
        try:
            self._store.start()
        except StoreLocked as error:
            raise Held(f"Another gateway is running: {error}.") from error
        except OSError as error:
            raise CannotCreate(
                f"{self._config.data_dir}: {error.strerror}. Choose another data_dir."
            ) from error
        if self._store.rebuilt and self._store.maybe_open():
            log.info("open.log was missing or damaged: every session is looked at")
        for channel in (self._cli(), self._http):
            self._bind(channel)
            self._supervisor.start(channel)

    def _cli(self) -> CliChannel:
        cli = self._config.channels.cli
        try:
            return CliChannel(self._config.socket, self._house, cli.group, cli.operators)
        except (UnknownName, SocketPathTooLong) as error:
            raise ConfigError([str(error)]) from error

    def _bind(self, channel: CliChannel | HttpChannel) -> None:
        try:
            channel.bind()
        except SocketInUse as error:
            raise Held(f"{error}.") from error
        except UnsafeDirectory as error:
            raise CannotCreate(f"{error}.") from error
        except OSError as error:
            if channel is self._http and error.errno == errno.EADDRINUSE:
                port = self._config.http.port
                raise Held(
                    f"Port {port} is taken by another program. Stop that one, or choose another http.port "
                    f"(LUNAR_HTTP__PORT={port + 1})."
                ) from error
            raise CannotCreate(f"channel {channel.name}: {error.strerror or error}") from error

    async def _end(self) -> None:
        self._health.draining = True
        drain = asyncio.create_task(self._router.drain(self._config.drain.total_seconds()))
        at_once = asyncio.create_task(self._at_once.wait())
        await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if not drain.done():
            await self._router.drain(0)
            drain.cancel()
        for chore in self._chores:
            chore.cancel()
        await self._supervisor.stop()
        await self._models.close()
        await self._store.close()
        log.info("stopped")

    def _telegram(self) -> None:
        from channels.telegram.channel import Settings, TelegramChannel
        from channels.telegram.pairing import FILE, Pairing

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
        pairing = Pairing(self._config.data_dir / FILE)
        shown = [(c.name, c.summary) for c in COMMANDS.values() if not c.operators]
        channel = TelegramChannel(settings, self._router, self._config.data_dir, pairing, shown)
        strangers = Strangers(pairing)
        self._controls.strangers = strangers
        self._about.telegram = lambda: channel.figures
        self._router.approve = strangers.approve
        self._router.employ(channel.courier)
        if channel.webhook_path:
            self._http.hook(channel.webhook_path, channel.webhook)
        self._supervisor.start(channel)

    # -- chores ----------------------------------------------------------------------------------

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, chore: asyncio.Task[None]) -> None:
        self._chores.discard(chore)
        if not chore.cancelled() and chore.exception():
            log.error("a chore broke", exc_info=chore.exception())

    async def _go_on(self) -> None:
        if self._config.channels.telegram.active:
            # Its library takes a third of a second to import: the others are served meanwhile.
            await asyncio.to_thread(importlib.import_module, "channels.telegram.channel")
            self._telegram()
        resumed = await self._router.resume()
        if resumed:
            log.info("going on with what was left open", sessions=resumed)

    async def _introduce(self) -> None:
        await self._models.warm()
        if any(self._models.is_demo(name) for name in self._config.models):
            log.info(DEMO_NOTICE)

    async def _tend(self) -> None:
        swept, told = time.monotonic(), set[tuple[str, int]]()
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            if self._store.fault:
                await self._store.probe()
            while self._store.repaired:
                log.warning("a torn line was cut off and kept beside", transcript=self._store.repaired.pop())
            for name, place in sorted(self._store.skipped - told):
                log.warning("a damaged line was passed over", transcript=name, place=place)
            told |= self._store.skipped
            if time.monotonic() - swept > _SWEEP_SECONDS:
                swept = time.monotonic()
                await self._router.sweep()
