"""Keeps channels running: backoff, one log line per failure, and why one is down."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import structlog

from channels.base import Channel

log = structlog.get_logger(__name__)

FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 60.0
_STEADY = 60.0  # seconds after which a failure counts as the first one again


@runtime_checkable
class Ailing(Protocol):
    """A channel that runs and can say why it does not work all the same."""

    @property
    def health(self) -> str | None:
        """One sentence for the operator; None while all is well."""


@runtime_checkable
class Noting(Protocol):
    """A channel that may have something to say while all is well."""

    @property
    def note(self) -> str | None:
        """It, for the operator."""


@runtime_checkable
class Crowded(Protocol):
    """A channel whose clients stay connected."""

    @property
    def connections(self) -> int:
        """How many are."""


class Supervisor:
    """Runs each channel in a task of its own; one that fails is started again, the others do not notice."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._down: dict[str, str] = {}  # why a channel is not running, by its name
        self._channels: dict[str, Channel] = {}
        self._sleep = sleep
        self._heard: dict[str, asyncio.Event] = {}  # set when a channel is ready, or has failed
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def faults(self) -> dict[str, str]:
        """Why a channel is not working, by its name."""
        ailing = {
            name: channel.health
            for name, channel in self._channels.items()
            if isinstance(channel, Ailing) and channel.health
        }
        return {**ailing, **self._down}

    @property
    def states(self) -> dict[str, str]:
        """Every channel by name: why it does not work, or `ready`."""
        faults = self.faults
        return {name: faults.get(name, "ready") for name in self._channels}

    @property
    def notes(self) -> dict[str, str]:
        """What is to be known of channels that are well, by name."""
        channels = self._channels.items()
        return {name: one.note for name, one in channels if isinstance(one, Noting) and one.note}

    @property
    def connections(self) -> dict[str, int]:
        """How many clients are connected, by channel."""
        return {name: one.connections for name, one in self._channels.items() if isinstance(one, Crowded)}

    def start(self, channel: Channel) -> None:
        """Begin to run a channel; it counts as down until it says that it is ready."""
        self._down[channel.name] = "starting"
        self._channels[channel.name] = channel
        self._heard[channel.name] = asyncio.Event()
        self._tasks[channel.name] = asyncio.create_task(self._keep(channel), name=f"channel {channel.name}")

    async def settled(self) -> None:
        """Wait until every channel that was started is ready, or has failed."""
        for heard in self._heard.values():
            await heard.wait()

    async def _keep(self, channel: Channel) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await channel.run(lambda: self._ready(channel.name))
                why = "it ended by itself"
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                why = "it was cancelled from within"  # by a library of its own: nobody stopped the channel
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            failures = 1 if loop.time() - began > _STEADY else failures + 1
            pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE) * random.uniform(0.75, 1.25)
            self._down[channel.name] = why
            self._heard[channel.name].set()
            log.error("a channel failed", channel=channel.name, why=why, again_in=round(pause, 1))
            await self._sleep(pause)

    def _ready(self, name: str) -> None:
        self._down.pop(name, None)
        self._heard[name].set()
        log.info("channel ready", channel=name)

    async def stop(self) -> None:
        """Stop every channel and wait until they are gone."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._tasks.clear()
