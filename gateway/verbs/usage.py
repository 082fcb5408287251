"""`lunar usage`: what models took, by day, agent, session or model, read from the transcripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from gateway import config_file
from gateway.errors import BadArgument
from gateway.usage import midnight, money, noted
from gateway.verbs.sessions import source, spread
from gateway.verbs.sessions.finding import disk
from gateway.verbs.sessions.printing import count, printable
from gateway.verbs.sessions.source import Source
from session import ids
from session.events import Assistant, System, Usage, closes, timestamp
from session.ids import SessionId

_MOST_DAYS = 36_500
_UNKNOWN = "(not known)"  # the model of a turn that failed, or was stopped

_KEYS: dict[str, Callable[[SessionId, Assistant | System], str]] = {
    "day": lambda session, event: event.ts[:10],
    "agent": lambda session, event: ids.parse(session)[0],
    "session": lambda session, event: session,
    "model": lambda session, event: event.model or _UNKNOWN,
}
BY = tuple(_KEYS)


class Sum(msgspec.Struct):
    """What one row adds up: the turns that were closed, and all that models took (summaries too)."""

    turns: int = 0
    used: Usage = Usage()

    def add(self, other: Sum) -> None:
        """Count the other's too."""
        self.turns += other.turns
        self.used += other.used


def main(config: str | None, days: int, by: str, as_json: bool) -> int:
    """Print the sums of the last `days` days (UTC), today included; raises `Unreadable`, `BadArgument`."""
    if not 1 <= days <= _MOST_DAYS:
        raise BadArgument("--days takes a whole number from 1 on.")
    at = source.of(config_file.load(config))
    since = midnight(datetime.now(UTC)) - timedelta(days=days - 1)
    with disk():
        touched = [entry for entry in at.entries() if entry.modified >= since.timestamp()]
        sums = dict[str, Sum]()
        for part in spread.over(at, touched, partial(summed, since=since, by=by), "Counting"):
            for key, found in part.items():
                sums.setdefault(key, Sum()).add(found)
    ordered = sorted(sums.items(), key=lambda item: _order(by, *item))
    print(_data(since, by, ordered) if as_json else "\n".join(_table(since, by, ordered)))
    return 0


def summed(at: Source, sessions: list[SessionId], *, since: datetime, by: str) -> dict[str, Sum]:
    """The sums of these sessions by their key; files that cannot be read are passed over."""
    first, key, sums = timestamp(since), _KEYS[by], dict[str, Sum]()
    for session in sessions:
        try:
            for event in noted(at.blocks(session)):
                if event.ts >= first and event.usage:
                    closed = int(closes(event) is not None)
                    sums.setdefault(key(session, event), Sum()).add(Sum(closed, event.usage))
        except OSError:
            continue
    return sums


def _order(by: str, key: str, found: Sum) -> tuple[Any, ...]:
    return (key,) if by == "day" else (-(found.used.cost or 0.0), -found.used.tokens, key)


def _total(rows: list[tuple[str, Sum]]) -> Sum:
    total = Sum()
    for _, found in rows:
        total.add(found)
    return total


def _data(since: datetime, by: str, rows: list[tuple[str, Sum]]) -> str:
    listed = [{by: key, **_figures(found)} for key, found in rows]
    data = {"since": timestamp(since), "by": by, "rows": listed, "total": _figures(_total(rows))}
    return json.dumps(data, indent=2)


def _figures(found: Sum) -> dict[str, Any]:
    used = found.used
    return {
        "turns": found.turns,
        "input": used.input,
        "output": used.output,
        "cost": None if used.cost is None else round(used.cost, 6),
        "estimated": used.estimated,
    }


def _table(since: datetime, by: str, rows: list[tuple[str, Sum]]) -> list[str]:
    if not rows:
        return [f"No model was asked since {since:%Y-%m-%d} (UTC)."]
    head = (by, "turns", "tokens in", "tokens out", "cost")
    body = [_cells(printable(key), found) for key, found in rows]
    table = [head, *body, _cells("total", _total(rows))]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    form = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    lines = [form.format(*row) for row in table]
    rule = "─" * len(lines[0])
    remark = f"Since {since:%Y-%m-%d}, days in UTC; {count(len(rows), by)}."
    if any(found.used.estimated for _, found in rows):
        remark += " ~: partly estimated, because the server did not tell."
    return [lines[0], rule, *lines[1:-1], rule, lines[-1], "", remark]


def _cells(key: str, found: Sum) -> tuple[str, ...]:
    used = found.used
    about = "~" if used.estimated else ""
    cost = "-" if used.cost is None else money(used.cost)
    return key, f"{found.turns:,}", f"{about}{used.input:,}", f"{about}{used.output:,}", cost
