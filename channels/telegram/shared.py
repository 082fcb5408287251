"""What the nodes of one bot have in common: facts in their store, and work that one of them does for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from channels.telegram.journal import Fact, Journal, facts_of, line_of

T = TypeVar("T")

_PATIENCE = 15.0  # seconds for an answer of the store
COMPACT_AT = 200  # lines; all of them are read with each update that comes


class SharedState(Protocol):
    """A store that several gateways share: `session.postgres_state.State`. All of it raises `OSError`."""

    async def state(self, name: str) -> bytes | None:
        """What is kept under this name; None where nothing is."""

    async def set_state(self, name: str, value: bytes, expected: bytes | None) -> bool:
        """Keep this instead of `expected`; False where something else is kept there, which stays."""


class Duty(Protocol):
    """Work that one node at a time does for all of them: `session.postgres_state.Duty`."""

    @property
    def holder(self) -> str | None:
        """The node that does it; None where this one does, or nobody knows."""

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work whenever it is ours: until then wait, and where it is lost break it off and wait again.

        Returns when the work does; raises what the work raises.
        """


class Common(NamedTuple):
    """What a node has in common with the others. The duty is one in every mode: two modes may meet in a
    rolling change, and must not undo each other's doing.
    """

    state: SharedState
    duty: Duty


class Overtaken(Exception):
    """Another node added a fact first: decide again on all of them."""


class SharedJournal:
    """A `Journal` in the store, under a name. For one caller at a time, on any thread but the loop's own.

    What `before` holds, the file of a node that had a store of its own, is taken over once.
    """

    def __init__(
        self, state: SharedState, name: str, loop: asyncio.AbstractEventLoop, before: Journal
    ) -> None:
        self._state = state
        self._name = name
        self._loop = loop
        self._before = before
        self._known: bytes | None = None
        self.compact_at = COMPACT_AT  # lines

    def news(self) -> list[Fact] | None:
        """Every fact, oldest first, where there are others, or too many; None else. Raises `OSError`."""
        raw = self._wait(self._state.state(self._name))
        while raw is None:
            first = b"".join(map(line_of, self._before.read()))
            self._wait(self._state.set_state(self._name, first, None))
            raw = self._wait(self._state.state(self._name))
        if raw == self._known and raw.count(b"\n") < self.compact_at:
            return None
        self._known = raw
        return facts_of(raw)

    def append(self, *facts: Mapping[str, Any]) -> None:
        """Add these to what `news` told; raises `Overtaken`, or `OSError`: they may be kept all the same."""
        self._set((self._known or b"") + b"".join(map(line_of, facts)))

    def replace(self, facts: list[Fact]) -> None:
        """Keep these and no others, in place of what `news` told; raises as `append` does."""
        self._set(b"".join(map(line_of, facts)))
        self.compact_at = len(facts) + COMPACT_AT

    def _set(self, value: bytes) -> None:
        if not self._wait(self._state.set_state(self._name, value, self._known)):
            raise Overtaken
        self._known = value

    def _wait(self, asked: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(_PATIENCE)


def journal(common: Common | None, data_dir: Path, file: str) -> Journal | SharedJournal:
    """The journal of a node that is alone, or the one of all; in the loop that answers for the store."""
    local = Journal(data_dir / file)
    if common is None:
        return local
    name = file.removesuffix(".jsonl")
    return SharedJournal(common.state, name, asyncio.get_running_loop(), local)
