"""What must hold beside the six invariants: who wrote a row, how soon a dead node is replaced."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from operator import attrgetter

from tests.scale.database import Claim, Late, Written
from tests.scale.fleet import NODES
from tests.scale.harms import STEADY, Death, Harmed

TAKE_OVER = 10.0  # seconds, at most
_ROLES = {"assistant", "tool_call", "tool_result"}
_NAMES = {"started", "steered", "sent", "delivered", "delivery_failed"}


def only_owners_wrote(rows: Iterable[Written]) -> None:
    """Each event of a turn was written by the node that held the session at that moment.

    A node that was frozen and goes on after it was declared dead is no owner, whatever it believes.
    """
    for session, written in groupby(rows, key=attrgetter("session")):
        for row in (mine := list(written)):
            assert not _is_of_a_turn(row.line) or row.writer == row.owner, (
                f"{session}: {row.writer} wrote what {row.owner} alone may write: {row}"
            )
        for before, behind in pairwise(mine):
            assert before.epoch <= behind.epoch, f"{session}: the epoch fell: {before}, {behind}"


def _is_of_a_turn(line: bytes) -> bool:
    event = json.loads(line)
    return event["role"] in _ROLES or (event["role"] == "system" and event["name"] in _NAMES)


def take_overs(
    deaths: Iterable[Death], claims: list[Claim], at_most: float | None = TAKE_OVER
) -> list[float]:
    """How long each session that was open on one of these nodes that died was nobody's.

    Raises `AssertionError` where that was too long, or for ever.
    """
    return [seconds for death in deaths for seconds in _after(death, claims, at_most)]


def seen(death: Death, ill: Iterable[Harmed | Late]) -> bool:
    """Whether another node was well: before, to tell a dead node from a dead database, and after.

    One that the machine gives so little time that it is late itself is not.
    """
    if death.kind == "freeze" and death.back - death.at < TAKE_OVER:
        return False  # it may go on before that
    begin, end = death.at - STEADY, death.at + TAKE_OVER
    nodes = {one.node for one in ill if one.begin < end and one.end > begin}
    return len(nodes | {death.node}) < NODES


def _after(death: Death, claims: list[Claim], at_most: float | None) -> Iterator[float]:
    for session in sorted(death.open):
        later = [claim.at - death.at for claim in claims if claim.session == session and claim.at > death.at]
        assert later, f"nobody took {session} over: {death}"
        assert at_most is None or later[0] <= at_most, f"{session} was nobody's for {later[0]:.1f} s: {death}"
        yield later[0]
