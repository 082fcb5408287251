"""A running gateway that gets nonsense by every way in, while three honest people are served as ever.

`LUNAR_TEST_TORTURE=1` makes it ten minutes long; LUNAR_TEST_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from session.transcript import Transcript
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.faults import invariants
from tests.faults.evil import Evil
from tests.faults.figures import TORTURE, figure
from tests.faults.people import WORD, Chatter, Client
from tests.faults.world import TOKEN, World

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 31)))
SECONDS = float(os.environ.get("LUNAR_TEST_SECONDS", "600"))
DEAD_LETTER = "an update went to the dead letters"  # what becomes of one that cannot be read
MEMORY = 64  # MiB that the process may grow by at its worst


def memory(pid: int) -> int:
    """The most that a process has ever held, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


async def _served(world: World, rounds: int | None, answered: list[float]) -> None:
    """Everybody asks, and is answered, again and again: so often, or for `SECONDS`."""
    ends = time.monotonic() + SECONDS
    while len(answered) < rounds if rounds else time.monotonic() < ends:
        began = time.monotonic()
        for someone in world.everybody:
            someone.say(f"hello {someone.name}w{len(someone.said)}")
        await world.until(lambda: not _owed(world), "the answers to honest people")
        answered.append(time.monotonic() - began)
        await asyncio.sleep(0 if rounds else 3.0)


def _owed(world: World) -> list[str]:
    found = []
    for someone in world.everybody:
        if isinstance(someone, Client):
            found += someone.owed()
        elif isinstance(someone, Chatter):
            shown = set(someone.shown())
            found += [word for said in someone.said for word in WORD.findall(said.text) if word not in shown]
    return found


def _damaged(path: Path) -> bool:
    file = Transcript(path, writable=False)
    try:
        return file.verify()[1:] != ((), 0)
    finally:
        file.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, for the memory")
async def test_nonsense_by_every_way_in(folder: Path) -> None:
    async with OpenAIServer() as openai, TelegramServer(TOKEN) as telegram:
        world = World(folder / "w", openai, telegram, random.Random(SEED), open_to_all=True)
        world.terminal("term0")
        world.browser("web0")
        world.chatter("tele0")
        answered: list[float] = []
        try:
            await world.daemon.start()
            evil = Evil(world)
            async with world.living():
                await _served(world, 1, [])  # all that is loaded at first is loaded now
                process = world.daemon.process
                assert process is not None
                before = memory(process.pid)
                honest = asyncio.create_task(_served(world, None if TORTURE else 2, answered))
                await evil.until(honest.done)
                await honest
                grown = memory(process.pid) - before
            health, _ = await world.daemon.get("/healthz")
            await world.daemon.stop()
            invariants.check(world)
            for path in (world.daemon.data_dir / "sessions").iterdir():
                assert not _damaged(path), f"{path.name}: a line is damaged"
            noise = [
                entry
                for entry in world.daemon.log
                if entry["level"] in ("error", "critical") and entry["event"] != DEAD_LETTER
            ]
            unhandled = [entry for entry in world.daemon.log if "exception" in entry]
            assert (noise, unhandled, world.daemon.noise) == ([], [], [])
            assert health == 200
            assert grown < MEMORY, f"grew by {grown} MiB"
        except Exception as error:
            raise AssertionError(f"LUNAR_TEST_SEED={SEED}: {error!r}") from error
        finally:
            await world.daemon.close()
    tried = {"runs": sum(evil.counts.values()), **evil.counts, "seconds": SECONDS if TORTURE else 0}
    served = {"served": len(answered), "slowest": round(max(answered), 1)}
    figure("fuzz", target="daemon", seed=SEED, **tried, **served, grown_mib=grown)
