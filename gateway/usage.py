"""What model calls took, as transcripts tell it: closing events and summaries carry a `Usage`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from session import events
from session.events import Assistant, BadLine, Event, Record, System, Usage, timestamp
from session.ids import SessionId
from session.protocols import TranscriptStore

if TYPE_CHECKING:
    from gateway.config import Allowance

_MARK = b'"usage":{'
_READ_AT_MOST = 16 << 20  # bytes of one transcript, to tell a person of the day


def usage_of(event: Event) -> Usage | None:
    """What the event says that model calls took."""
    return event.usage if isinstance(event, Assistant | System) else None


async def recorded(store: TranscriptStore, session: SessionId) -> AsyncIterator[Assistant | System]:
    """The session's events that carry a usage, in order. Raises `OSError`."""
    async for block in store.blocks(session):
        if _MARK in block:
            for event in await asyncio.to_thread(lambda block: list(noted([block])), block):
                yield event


def noted(blocks: Iterable[bytes]) -> Iterator[Assistant | System]:
    """The same of whole lines, in blocks that end with a line; damaged lines are passed over."""
    for block in blocks:
        if _MARK not in block:
            continue
        for line in block.splitlines():
            if _MARK in line and (event := _event(line)) is not None:
                yield event


def _event(line: bytes) -> Assistant | System | None:
    try:
        event = events.decode(line)
    except BadLine:
        return None
    return event if isinstance(event, Assistant | System) and event.usage else None


class Day:
    """Adds up a session's usage of one day, from its end; `enough` is for `Store.recent`."""

    def __init__(self, now: datetime) -> None:
        self.used = Usage()
        self._since = timestamp(midnight(now))
        self._bytes = 0

    def enough(self, record: Record) -> bool:
        """Take in an event; true where all earlier ones are of another day."""
        self._bytes += len(record.line)
        ts = getattr(record.event, "ts", "")
        if ts and ts < self._since:
            return True
        self.used += usage_of(record.event) or Usage()
        return self._bytes >= _READ_AT_MOST


def midnight(moment: datetime) -> datetime:
    """When the moment's day (UTC) began."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def money(amount: float) -> str:
    """An amount in the unit of the configured prices: two places, and more where it is small."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.4f}"


def shown(used: Usage, allowance: Allowance | None = None) -> str:
    """Tokens and money, with what is allowed of them, such as `1,200 of 5,000 tokens, 0.0120`."""
    tokens, amount = f"{used.tokens:,}", "" if used.cost is None else money(used.cost)
    if allowance and allowance.tokens is not None:
        tokens += f" of {allowance.tokens:,}"
    if allowance and allowance.money is not None:
        amount = f"{amount or money(0.0)} of {money(allowance.money)}"
    return f"{tokens} tokens" + (f", {amount}" if amount else "")
