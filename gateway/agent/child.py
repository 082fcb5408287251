"""A child process whose output is read to its end, though no more than the beginning of it is held.

asyncio's own streams and the protocol that feeds them hold each other: some hundred objects a call that only
the garbage collector could free.
"""

from __future__ import annotations

import asyncio


class Child(asyncio.SubprocessProtocol):
    """`printed` and `logged` are what came on stdout and stderr; `over` is set when all of it has ended."""

    def __init__(self, printed: int, logged: int) -> None:
        self.printed = Head(printed)
        self.logged = Head(logged)
        self.over = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what is new, if it still belongs to the beginning."""
        self._head(fd).add(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Note that nothing more comes on one of them. Nobody reads what we write: its answer tells why."""
        if fd:
            self._head(fd).ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended, and so have its pipes."""
        self.over.set()

    def _head(self, fd: int) -> Head:
        return self.printed if fd == 1 else self.logged


class Head:
    """The first `limit` bytes of a stream, and in `size` how many there were in all."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.size = 0
        self.ended = asyncio.Event()
        self._limit = limit

    def add(self, data: bytes) -> None:
        """Count these bytes, and keep those of them that are among the first."""
        self.size += len(data)
        self.data += data[: max(0, self._limit - len(self.data))]
