"""What a lane is told by the configuration, and what a message may ask of it."""

from __future__ import annotations

import asyncio
from typing import Literal, NamedTuple, get_args

Mode = Literal["collect", "each", "steer", "interrupt"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Rules(NamedTuple):
    """What a lane is told by the configuration."""

    history_turns: int = 20
    mode: Mode = "collect"
    summaries: bool = True  # of what the model no longer sees, without anybody's asking
    push: bool = False  # the channel brings its replies by itself: they are open until they are delivered


class Again(NamedTuple):
    """What a message asks once more: those messages, in place of the exchange of the turn `undo`."""

    of: tuple[str, ...]
    undo: str | None


class Quiet:
    """Time in which more of the same is expected, so that what belongs together is answered together."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = 0.0  # the loop's time

    def hold(self, seconds: float) -> None:
        """More is expected within so many seconds."""
        self._until = max(self._until, asyncio.get_running_loop().time() + seconds)

    @property
    def over(self) -> bool:
        """Whether nothing more is expected."""
        return self._until <= asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Wait until nothing more is expected."""
        clock = asyncio.get_running_loop().time
        while (pause := self._until - clock()) > 0:  # noqa: ASYNC110 - time itself is awaited
            await asyncio.sleep(pause)
