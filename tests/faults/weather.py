"""What befalls a gateway that soaks: a fault at a time, drawn by the dice, and healed before the next."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from tests.fakes.openai_server import Behaviour
from tests.fakes.proxy import Proxy
from tests.faults.listener import Listener
from tests.faults.test_network import MODEL, TELEGRAM
from tests.faults.world import World

STANDSTILL = 10.0  # seconds that the whole process is stopped, at most
Fault = Callable[[float], Awaitable[str]]  # lasts so many seconds; says what it was


class Weather:
    """`faults` are those that leave the process alive; `proxies` are the ways between every pair."""

    def __init__(
        self, world: World, proxies: dict[str, Proxy], listener: Listener, dice: random.Random
    ) -> None:
        self.faults: tuple[Fault, ...] = (
            self.network,
            self.network,
            self.network,
            self.stopped_client,
            self.standstill,
            self.model,
            self.telegram,
            self.disk,
            self.reload,
        )
        self._world = world
        self._proxies = proxies
        self._listener = listener
        self._dice = dice

    async def network(self, seconds: float) -> str:
        """Something happens between two of them. What cuts a model's answer short is a reply of its own."""
        pair = self._dice.choice(sorted(self._proxies))
        proxy = self._proxies[pair]
        harmless = ["late", "slow"]
        what = self._dice.choice(
            harmless if pair == "model" else [*harmless, "cut", "reset", "half-open", "refused", "swallowed"]
        )
        match what:
            case "late":
                proxy.delay = self._dice.uniform(0.05, 0.5)
            case "slow":
                proxy.pace = 0.001
            case "cut":
                proxy.cut()
            case "reset":
                proxy.reset()
            case "half-open":
                proxy.half_open()
            case "refused":
                proxy.refusing = True
                proxy.reset()
            case "swallowed":
                proxy.swallowing = True
                proxy.half_open()
        await asyncio.sleep(seconds)
        proxy.heal()
        return f"{pair} {what}"

    async def stopped_client(self, seconds: float) -> str:
        """A process that listens stands still."""
        self._listener.stop()
        await asyncio.sleep(seconds)
        self._listener.go_on()
        return "a client stopped"

    async def standstill(self, seconds: float) -> str:
        """The gateway itself stands still, as on a machine that sleeps."""
        self._world.daemon.signal(signal.SIGSTOP)
        await asyncio.sleep(min(seconds, STANDSTILL))
        self._world.daemon.signal(signal.SIGCONT)
        return "the gateway stopped"

    async def model(self, seconds: float) -> str:
        """Every other question meets a fault, once."""
        honest, asked = self._world.openai.reply, set[str]()

        def faulty(body: dict[str, Any]) -> Behaviour:
            question = json.dumps(body["messages"])
            if question in asked or self._dice.random() < 0.5:
                return honest(body)
            asked.add(question)
            return self._dice.choice(MODEL)

        self._world.openai.reply = faulty
        await asyncio.sleep(seconds)
        self._world.openai.reply = honest
        return "the model fails"

    async def telegram(self, seconds: float) -> str:
        """Some calls of every kind meet a fault."""
        for method, kinds in TELEGRAM.items():
            for kind in self._dice.sample(kinds, 3):
                self._world.telegram.fail(method, kind)
        await asyncio.sleep(seconds)
        self._world.telegram.heal()
        return "Telegram fails"

    async def disk(self, seconds: float) -> str:
        """Every write to a file is refused (EFBIG), which needs no disk of its own."""
        process = self._world.daemon.process
        assert process is not None
        allowed = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, allowed[1]))
        await asyncio.sleep(seconds)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, allowed)
        return "the disk refuses"

    async def reload(self, _: float) -> str:
        """The configuration is read again, and means something else."""
        path, daemon = self._world.folder / "config.yaml", self._world.daemon
        config = json.loads(path.read_text())
        config["agents"]["main"]["history_turns"] = self._dice.randint(2, 12)
        path.write_text(json.dumps(config))
        before = len(daemon.log)
        daemon.signal(signal.SIGHUP)
        await daemon.logged("configuration read", since=before)
        return "reloaded"
