"""Replies in Telegram while one chat waits out a flood: as fast as without one?

A real daemon, and a Bot API server on loopback. Nine people write every few seconds; a tenth one's chat is
now in a flood wait, now not, so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.process import model_server
from benchmarks.table import Row
from tests.fakes.daemon import Daemon
from tests.fakes.telegram_people import Person
from tests.fakes.telegram_server import TelegramServer

TOKEN = "123456:AAbenchbenchbenchbenchbenchbenchbench"
OTHERS = 9
FLOOD, LONG_FLOOD = 10.0, 60.0  # seconds of a flood wait
CYCLES = 2  # of a flood, and as long without one
ROUND = 3.5  # seconds from one message to the same person's next: within Telegram's own limits
_APART = 0.03  # seconds between two people's messages
_PATIENCE = 60.0


class _Scene:
    def __init__(self, server: TelegramServer) -> None:
        self.server = server
        self.others = [server.user(100 + number, f"Person {number}") for number in range(OTHERS)]
        self.loud = server.user(99, "Loud")
        self._round = 0

    async def phase(self, seconds: float) -> list[float]:
        """Everybody writes, over and over; how long each of the others waited for the whole reply."""
        taken: list[float] = []
        end = time.monotonic() + seconds - ROUND
        while True:
            began = time.monotonic()
            self._round += 1
            self.loud.says(f"round {self._round}")
            async with asyncio.TaskGroup() as group:
                waiting = [group.create_task(self._ask(who, n)) for n, who in enumerate(self.others)]
            taken += [task.result() for task in waiting]
            if time.monotonic() > end:
                return taken
            await asyncio.sleep(began + ROUND - time.monotonic())

    async def _ask(self, person: Person, number: int) -> float:
        await asyncio.sleep(number * _APART)
        text = f"round {self._round}"
        began = time.perf_counter()
        person.says(text)
        await self.server.until(lambda: person.chat.texts()[-1:] == [f"echo: {text}"], _PATIENCE)
        return time.perf_counter() - began

    async def flood(self, seconds: float) -> float:
        """Have the loud chat refused, and wait until it has been; when the wait is over."""
        self.server.flood(self.loud.id, seconds)
        end = time.monotonic() + seconds
        refused = len(self._refused())
        self.loud.says("Hello?")
        await self.server.until(lambda: len(self._refused()) > refused, _PATIENCE)
        return end

    def _refused(self) -> list[object]:
        return [call for call in self.server.calls if call.status == 429]

    async def caught_up(self) -> None:
        """Wait until the loud chat has its last answer, too."""
        last = f"round {self._round}"
        await self.server.until(lambda: any(last in text for text in self.loud.chat.texts()[-1:]), _PATIENCE)
        await asyncio.sleep(ROUND)


async def _measure(url: str, flood: float) -> tuple[list[float], list[float]]:
    usual: list[float] = []
    flooded: list[float] = []
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as temporary:
        async with TelegramServer(TOKEN) as server:
            environment = {
                "LUNAR_MODEL__BASE_URL": url,
                "LUNAR_MODEL__NAME": "fake",
                "LUNAR_MODEL__API_KEY": "none",
                "TELEGRAM_BOT_TOKEN": TOKEN,
                "LUNAR_CHANNELS__TELEGRAM__API_URL": server.api_url,
                "LUNAR_CHANNELS__TELEGRAM__ALLOW": str([99, *range(100, 100 + OTHERS)]),
            }
            async with Daemon(Path(temporary) / "a", env=environment) as daemon:
                scene = _Scene(server)
                await scene.phase(ROUND)  # connections, imports
                await scene.caught_up()
                for cycle in range(CYCLES):
                    for with_flood in (cycle % 2 == 1, cycle % 2 == 0):  # a drift falls on both alike
                        if with_flood:
                            end = await scene.flood(flood)
                            flooded += await scene.phase(end - time.monotonic() - 1)
                        else:
                            usual += await scene.phase(flood)
                        await scene.caught_up()
                await daemon.stop()
    return usual, flooded


def run(*, quick: bool) -> list[Row]:
    """Measure; the bar is a ratio of 1.1."""
    flood = FLOOD if quick else LONG_FLOOD
    with model_server() as url:
        usual, flooded = asyncio.run(_measure(url, flood))
    without, during = median(usual), median(flooded)
    what = f"reply, p50 of {len(flooded)}, one chat {flood:.0f} s in a flood wait"
    return [Row(what, f"{during * 1e3:.1f} ms", f"{without * 1e3:.1f} ms", during / without)]
