"""People on all nodes and three channels, harm to nodes and connections: judged by ledger and rows."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NamedTuple

from tests.fakes.proxy import Proxy
from tests.faults import invariants
from tests.faults.kills import Load
from tests.scale import judge
from tests.scale.fleet import Fleet
from tests.scale.harms import Harms, Pace

CHATTERS = 4  # in Telegram; with the others there are a hundred sessions


class Talkers(Load):
    """As `Load`; many of the replies take a second, so that a node that dies leaves something open."""

    texts = (*Load.texts, "and slow", "and slow", "and slow")


def _fewer(load: Talkers, than: int) -> bool:
    return len(load.missing()) < than


class Trial(NamedTuple):
    """What a trial is repeated by, and how long it is."""

    seed: int
    faults: int
    sessions: int = 100
    calm: float = 5.0  # how seldom people speak
    at_most: float | None = judge.TAKE_OVER  # seconds of a take-over; None where the machine may be busy


async def tried(fleet: Fleet, proxies: list[Proxy], trial: Trial, pace: Pace) -> dict[str, Any]:
    """Raises `AssertionError` where something does not hold."""
    clients = trial.sessions - CHATTERS
    load = Talkers(
        fleet, terminals=clients // 2, browsers=clients - clients // 2, chatters=CHATTERS, calm=trial.calm
    )
    harms = Harms(fleet, proxies, pace)
    async with fleet.living():
        talking = [asyncio.create_task(load.talk(someone)) for someone in fleet.everybody]
        await harms.befall(trial.faults)
        load.over = True
        await asyncio.gather(*talking)
        try:
            # However many wait on a slow machine: what counts is that there is always one more answer.
            while left := len(load.missing()):
                fewer = partial(_fewer, load, left)
                await fleet.until(fewer, "an answer", seconds=120)
        except AssertionError as error:
            waiting = load.missing()
            sessions = [someone.session for someone in fleet.roamers if someone.owed()]
            for chatter in fleet.chatters:
                if any(word.startswith(f"{chatter.name}w") for word in waiting):
                    sessions.append(chatter.session)
            told = [await fleet.rows.state(session) for session in sessions]
            missing = f"{error} {len(waiting)} wait: {waiting[:10]}"
            raise AssertionError("\n".join([missing, *told[:3], str(harms.happened)])) from None
    await fleet.stop()
    await fleet.read()
    invariants.check(fleet)
    judge.only_owners_wrote(await fleet.rows.written())
    late = await fleet.rows.late()
    seen = [death for death in harms.deaths if judge.seen(death, [*harms.happened, *late])]
    try:
        overtaken = judge.take_overs(seen, await fleet.rows.claims(), trial.at_most)
    except AssertionError as error:
        raise AssertionError(f"{error}: {harms.happened} {late}") from None
    return {
        "messages": sum(len(someone.said) for someone in fleet.everybody),
        "effects": len(fleet.stamped),
        "given_up": sum(len(fleet.given_up(someone.session)) for someone in fleet.everybody),
        "deaths": len(harms.deaths),
        "zombies": sum(death.kind == "freeze" for death in harms.deaths),
        "late": len(late),  # beats, also of nodes that were frozen or cut off
        "seen": len(seen),  # deaths at which another node was well: they are judged
        "taken_over": len(overtaken),
        "take_over_longest": round(max(overtaken, default=0.0), 2),
        "defects": len(fleet.broken),
    }
