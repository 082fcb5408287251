"""Exchanges that the model no longer sees and no summary covers yet."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from session.events import ToolResult
from session.exchange import Exchange, Step

MESSAGES = 64  # that are kept at most, as `history_turns` counts them
BYTES = 256 * 1024
_RESULT = 2_000  # characters of a tool's result that are kept


class Backlog:
    """The newest of them, oldest first: whole exchanges within both bounds, the newest whatever its size."""

    __slots__ = ("_bytes", "_exchanges", "_messages")

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []
        self._messages = self._bytes = 0

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._exchanges)

    def add(self, exchange: Exchange) -> None:
        """One more has fallen out."""
        exchange.steps = [_short(step) for step in exchange.steps]
        self._exchanges.append(exchange)
        self._count(exchange, 1)
        while len(self._exchanges) > 1 and (self._messages > MESSAGES or self._bytes > BYTES):
            self._count(self._exchanges.pop(0), -1)

    def discard(self, exchange: Exchange) -> None:
        """It was covered, or taken back."""
        self._exchanges.remove(exchange)
        self._count(exchange, -1)

    def clear(self) -> None:
        """Nothing before this is of interest any more."""
        self._exchanges.clear()
        self._messages = self._bytes = 0

    def _count(self, exchange: Exchange, sign: int) -> None:
        self._messages += sign * exchange.size
        self._bytes += sign * exchange.bytes


def _short(step: Step) -> Step:
    if isinstance(step, ToolResult) and isinstance(step.result, str) and len(step.result) > _RESULT:
        return replace(step, result=step.result[:_RESULT] + "…")
    return step
