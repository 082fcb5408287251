"""One trial: the scripted run, crashed at one place, started again, and judged."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import NamedTuple

from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.faults import invariants
from tests.faults.crashing import STATUS
from tests.faults.trial import Script
from tests.faults.world import TOKEN, World

HERE = "tests/faults/test_failpoints.py"


class Outcome(NamedTuple):
    """The places that were reached, and whether the daemon crashed at the last of them."""

    places: list[str]
    crashed: bool


async def run(folder: Path, spec: str) -> Outcome:
    """Raises `AssertionError` with the command that repeats it, where an invariant does not hold."""
    log = folder / "places"
    async with OpenAIServer() as openai, TelegramServer(TOKEN) as telegram:
        world = World(folder, openai, telegram, random.Random(spec))
        script = Script(world)
        try:
            await world.daemon.launch(FAILPOINT=spec, FAILPOINT_LOG=str(log))
            await _ready(world)
            async with world.living():
                playing = asyncio.create_task(script.play())
                crashed = await _crashed(world, playing, script)
                if crashed:
                    assert await world.daemon.exit() == STATUS, world.daemon.noise[-20:]
                    await world.daemon.start()
                await playing
                await world.until(lambda: script.over, "everybody's answers")
                if world.daemon.process.returncode == STATUS:  # behind the last answer
                    crashed = True
                    await world.daemon.start()
            await world.daemon.stop()
            invariants.check(world)
        except AssertionError as error:
            told = f"{error} {script.missing()} {world.daemon.log[-5:]} {world.daemon.noise[-10:]}"
            raise AssertionError(f"LUNAR_TEST_FAILPOINT={spec} pytest {HERE}: {told}") from error
        finally:
            await world.daemon.close()
    return Outcome(log.read_text().splitlines(), crashed)


async def _ready(world: World) -> None:
    """Wait until people can come, or it has crashed; a busy machine may take long over it."""
    while True:
        try:
            ready = await world.daemon.logged("ready")
        except AssertionError:
            if world.daemon.process is None or world.daemon.process.returncode is not None:
                return
        else:
            world.daemon.port = int(ready["http"].rsplit(":", 1)[1].strip("/"))
            return


async def _crashed(world: World, playing: asyncio.Task[None], script: Script) -> bool:
    """Wait until the daemon has crashed, or everybody is content without that."""
    assert world.daemon.process is not None
    ended = asyncio.create_task(world.daemon.process.wait())
    over = asyncio.create_task(_over(world, playing, script))
    await asyncio.wait({ended, over}, return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        over.cancel()
        return True
    ended.cancel()
    over.result()
    return False


async def _over(world: World, playing: asyncio.Task[None], script: Script) -> None:
    await asyncio.shield(playing)
    await world.until(lambda: script.over, "everybody's answers, without a crash")
