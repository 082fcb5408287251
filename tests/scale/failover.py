"""The primary is killed while people talk, and the standby takes its place."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.faults import invariants
from tests.scale.stage import Stage
from tests.scale.talk import Talk


async def lost_its_primary(stage: Stage, *, rate: float, calm: float) -> dict[str, Any]:
    """`calm` seconds of talk before it, and behind it. Raises `AssertionError` where something is lost."""
    fleet, standby = stage.fleet, stage.standby
    assert standby is not None
    talk = Talk(fleet)
    async with fleet.living():
        await fleet.until(lambda: talk.connected, "a welcome for everybody")
        talking = asyncio.create_task(talk.go_on(rate))
        await asyncio.sleep(calm)
        acknowledged = sum(len(person.acknowledged) for person in talk.people)
        away = time.monotonic()
        await asyncio.to_thread(stage.primary.kill)
        await asyncio.to_thread(standby.promote)
        fleet.rows.moved()
        promoted = time.monotonic()
        before = talk.answers
        await fleet.until(lambda: talk.answers > before, "an answer over the standby")
        served = time.monotonic()
        await asyncio.sleep(calm)
        talk.over = True
        await talking
        try:
            await fleet.until(lambda: not talk.missing(), "all answers")
        except AssertionError as error:
            missing = talk.missing()
            told = [await fleet.rows.state(person.session) for person in fleet.roamers if person.owed()]
            raise AssertionError("\n".join([f"{error}: {missing}", *told[:3]])) from None
    await fleet.stop()
    await fleet.read()
    invariants.check(fleet)
    return {
        **talk.waits._asdict(),
        "acknowledged_before": acknowledged,
        "promoted_after": round(promoted - away, 2),
        "served_after": round(served - promoted, 2),
    }
