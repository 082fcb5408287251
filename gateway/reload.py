"""Reading the configuration again: what holds from the next turn on, and what waits for a restart.

A configuration that is wrong changes nothing. That one was refused is told by the log, by whoever asked, and
by `remarks` for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog

from gateway.config import Config
from gateway.config_file import Loaded
from gateway.config_leaves import dotted, leaves, plain, replaced
from gateway.config_problem import KeyPath, located
from gateway.config_secrets import secrets
from gateway.errors import ConfigError
from gateway.log import learn
from gateway.systemd import Notifier

log = structlog.get_logger(__name__)

# What a running gateway takes over. Turns that were begun before keep what they began with.
LIVE = (
    "drain",
    "http.token",
    "http.allowed_origins",
    "http.trusted_proxies",
    "http.agents",
    "models",
    "agents",
    "routes",
    "queue",
    "retention",
    "channels.cli.operators",
    "channels.telegram.allow",
)
# What is built into sockets that listen, files that are open and programs that run.
RESTART = (
    "data_dir",
    "store",
    "http.host",
    "http.port",
    "tools",
    "channels.cli.socket",
    "channels.cli.group",
    "channels.webchat.enabled",
    "channels.telegram.enabled",
    "channels.telegram.bot_token",
    "channels.telegram.api_url",
    "channels.telegram.mode",
    "channels.telegram.webhook_url",
    "channels.telegram.streaming",
    "channels.telegram.groups",
    "channels.telegram.group_context",
)
ABSENT = "(not there)"
T = TypeVar("T")

_READING = 8.0  # seconds; `lunar reload` waits for ten
_SILENT = (
    "the configuration cannot be read: its file, or one that it names, gives nothing; is it a pipe, or on a "
    "disk that is away?"
)


class Change(NamedTuple):
    """A key whose value is another one now; secrets are masked."""

    key: str
    before: Any
    after: Any


class Outcome(NamedTuple):
    """What a reload came to: what is in force now, and the keys that wait for a restart."""

    changed: list[Change]
    waiting: list[str]


class Reload:
    """`read` reads everything anew; `apply` puts a configuration into force. Both raise `ConfigError`."""

    def __init__(
        self,
        running: Config,
        read: Callable[[], Loaded],
        apply: Callable[[Config], None],
        notifier: Notifier,
    ) -> None:
        self.remarks: dict[str, str] = {}  # for `Health.remarks`
        self._running = running
        self._read = read
        self._apply = apply
        self._notifier = notifier
        self._one_by_one = asyncio.Lock()  # an older look at the file must not be put into force last

    async def again(self) -> Outcome:
        """Read the configuration and put it into force; raises `ConfigError`, and then nothing changes."""
        async with self._one_by_one:
            self._notifier.reloading()
            try:
                return self._taken(await self._anew())
            except ConfigError as error:
                self._refused(error.problems)
                raise
            finally:
                self._notifier.ready()

    async def _anew(self) -> Loaded:
        try:
            async with asyncio.timeout(_READING):
                return await _beside(self._read)
        except TimeoutError:
            raise ConfigError([_SILENT]) from None

    async def on_signal(self) -> None:
        """The same, for whoever waits for no answer."""
        try:
            await self.again()
        except ConfigError:
            return  # the log has it

    def _refused(self, problems: list[str]) -> None:
        self.remarks["config"] = f"not taken over, the last good one is in use: {problems[0]}"
        log.error("the configuration is wrong, so nothing changes", problems=problems)

    def _taken(self, loaded: Loaded) -> Outcome:
        learn(secrets(loaded.config))
        config = joined(self._running, loaded.config)
        waiting = _summed(config, loaded.config)
        try:
            self._apply(config)
        except ConfigError as error:
            problems = [located(words, loaded.places) for words in error.problems]
            if waiting:  # a tool that an agent may call from now on, and that comes with the restart
                problems.append(f"it may be right after a restart, for which waits: {', '.join(waiting)}")
            raise ConfigError(problems) from error
        changed = differences(self._running, config)
        self._running = config
        self.remarks.clear()
        if waiting:
            self.remarks["config"] = f"waits for a restart: {', '.join(waiting)}"
        for change in changed:
            log.info("configuration changed", **change._asdict())
        log.info("configuration read", changed=[change.key for change in changed], needs_restart=waiting)
        return Outcome(changed, waiting)


async def _beside(work: Callable[[], T]) -> T:
    """The outcome of work in a thread for which no stop waits: it may hang in a file for ever."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def do() -> None:
        try:
            settle = partial(done.set_result, work())
        except Exception as error:
            settle = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: done.done() or settle())

    threading.Thread(target=do, name="configuration", daemon=True).start()
    return await done


def joined(running: Config, read: Config) -> Config:
    """What was read, as far as it can hold now.

    What waits for a restart is as it was; agents and models that were removed stay until then, for sessions
    are held by them.
    """
    config = read.model_copy(
        update={"models": {**running.models, **read.models}, "agents": {**running.agents, **read.agents}}
    )
    keep = [*RESTART]
    if read.http.host != running.http.host:
        keep.append("http.token")  # one may be needed where we listen, and not where we shall
    for key in keep:
        config = replaced(config, key.split("."), running)
    return config


def differences(before: Config, after: Config) -> list[Change]:
    """Every key that has another value, or is there only before or after."""
    old, new = dict(leaves(before)), dict(leaves(after))
    return [
        Change(dotted(path), _shown(old, path), _shown(new, path))
        for path in {**old, **new}
        if path not in old or path not in new or old[path] != new[path]
    ]


def _shown(values: dict[KeyPath, Any], path: KeyPath) -> Any:
    return plain(values[path]) if path in values else ABSENT


def _summed(running: Config, read: Config) -> list[str]:
    """What waits, each section of `RESTART` and each removed agent or model as one."""
    whole = [f"agents.{name}" for name in running.agents if name not in read.agents]
    whole += [f"models.{name}" for name in running.models if name not in read.models]
    whole += RESTART
    waiting = [
        next((above for above in whole if f"{change.key}.".startswith(f"{above}.")), change.key)
        for change in differences(running, read)
    ]
    return list(dict.fromkeys(waiting))
