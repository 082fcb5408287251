"""A proxy that does to connections what networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Self

_PIECE = 1 << 16


class _Link:
    """One connection through the proxy: its two ends, and whether it still carries anything."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.ends = [writer]
        self.mute = False

    def abort(self, *, reset: bool) -> None:
        for end in self.ends:
            if reset and (raw := end.get_extra_info("socket")) is not None:
                # Closing with a linger of 0 s sends RST instead of FIN.
                with suppress(OSError):  # it is closed already
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


class Proxy:
    """Listens on `port` (or on the Unix socket `path`) and forwards to `target`, another one of either.

    `cut`, `reset` and `half_open` befall the connections that there are; the attributes hold for all from
    the moment they are set.
    """

    def __init__(self, target: int | Path, path: Path | None = None) -> None:
        self.target = target
        self.path = path
        self.port = 0
        self.connections = 0  # made so far
        self.delay = 0.0  # seconds that each piece is late
        self.pace: float | None = None  # seconds from byte to byte; None: as they come
        self.refusing = False  # new connections are reset
        self.swallowing = False  # new connections are taken, and nothing ever comes through
        self.open = asyncio.Event()  # while it is not set, new connections wait: the later may come first
        self.open.set()
        self._news = asyncio.Condition()
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if self.path is not None:
            self._server = await asyncio.start_unix_server(self._accept, self.path)
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.open.set()
        self.cut()
        if self._serving:
            await asyncio.wait(self._serving, timeout=1.0)

    def cut(self) -> None:
        """Close every connection without a word."""
        for link in list(self._links):
            link.abort(reset=False)

    def reset(self) -> None:
        """Reset every connection."""
        for link in list(self._links):
            link.abort(reset=True)

    def half_open(self) -> None:
        """Nothing comes through any more, not even an end: each side believes that the other is there."""
        for link in self._links:
            link.mute = True

    def heal(self) -> None:
        """New connections are as they should be, and so are the old ones that still live.

        A mute one on a Unix socket ends: only a process can have held it up, whose own end is told.
        """
        self.delay, self.pace = 0.0, None
        self.refusing = self.swallowing = False
        self.open.set()
        for link in list(self._links):
            if link.mute and self.path is not None:
                link.abort(reset=False)

    async def connected(self, count: int) -> None:
        """Wait until so many connections were made."""
        async with asyncio.timeout(15), self._news:
            await self._news.wait_for(lambda: self.connections >= count)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        link = _Link(writer)
        link.mute = self.swallowing
        async with self._news:
            self.connections += 1
            self._news.notify_all()
        if self.refusing:
            link.abort(reset=True)
            return
        self._links.add(link)
        try:
            await self.open.wait()
            await self._join(link, reader)
        finally:
            link.abort(reset=False)
            self._links.discard(link)

    async def _join(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            if isinstance(self.target, Path):
                there, back = await asyncio.open_unix_connection(self.target)
            else:
                there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        link.ends.append(back)
        writer = link.ends[0]
        await asyncio.gather(self._forward(link, reader, back), self._forward(link, there, writer))

    async def _forward(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_PIECE):
                await self._pass(link, data, writer)
        except ConnectionError:
            pass
        if not link.mute:
            link.abort(reset=False)

    async def _pass(self, link: _Link, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        while data and not link.mute:
            if (pace := self.pace) is not None:
                await asyncio.sleep(pace)
            size = len(data) if pace is None else 1
            writer.write(data[:size])
            data = data[size:]
            await writer.drain()
