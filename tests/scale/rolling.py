"""Every node is stopped and started again, one after the other, while people talk."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.faults import invariants
from tests.scale.fleet import Fleet
from tests.scale.talk import Talk


async def rolled(fleet: Fleet, *, rate: float, calm: float) -> dict[str, Any]:
    """Restart all nodes; `calm` seconds before each. Raises `AssertionError` where somebody noticed."""
    talk = Talk(fleet)
    stops: list[float] = []
    async with fleet.living():
        await fleet.until(lambda: talk.connected, "a welcome for everybody")
        talking = asyncio.create_task(talk.go_on(rate))
        for daemon in fleet.daemons:
            await asyncio.sleep(calm)
            began = time.monotonic()
            assert await daemon.stop() == 0, daemon.log[-5:]
            stops.append(round(time.monotonic() - began, 2))
            await daemon.start()
        await asyncio.sleep(calm)
        talk.over = True
        await talking
        await fleet.until(lambda: not talk.missing(), f"answers: {talk.missing()[:10]}")
    await fleet.stop()
    await fleet.read()
    invariants.check(fleet)
    assert not talk.errors, f"{len(talk.errors)} errors were seen: {talk.errors[:5]}"
    assert not fleet.broken, fleet.broken[:3]
    return {**talk.waits._asdict(), "stops": stops}
