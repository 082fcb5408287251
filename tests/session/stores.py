"""A store and its sessions, as the tests of `session.store` use them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

from session import ids
from session.events import Event, Record, System, User
from session.ids import SessionId
from session.store import Store
from tests.session.disk import Disk

HERE = SessionId("agent:main:cli:local")
THERE = SessionId("agent:main:cli:work")
LONG = SessionId("agent:main:telegram:" + "long:" * 60)


def user(id: str) -> User:
    return User(content=f"text of {id}", id=id, ts="t")


def note(text: str) -> System:
    return System(name="note", content=text, ts="t")


def session(number: int) -> SessionId:
    return SessionId(f"agent:main:cli:s{number}")


def said(records: list[Record]) -> list[Event]:
    """The events without the header."""
    return [record.event for record in records if getattr(record.event, "name", "") != "session"]


def path_of(opened: Store, of: SessionId = HERE) -> Path:
    return opened.data_dir / "sessions" / ids.file_name(of)


def transcripts_open(folder: Path) -> int:
    count = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{number}").startswith(f"{folder}/sessions/agent-")
        except FileNotFoundError:
            continue
    return count


async def everything(opened: Store, of: SessionId = HERE) -> list[Event]:
    return said(await opened.after(of, None, 100_000))


class Gate:
    """Holds back the calls of one function until it is opened."""

    def __init__(self, disk: Disk, name: str) -> None:
        real: Callable[..., object] = disk.instead.get(name) or getattr(os, name)
        self._open = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._entered = asyncio.Event()

        def call(*args: object) -> object:
            self._loop.call_soon_threadsafe(self._entered.set)
            assert self._open.wait(30)
            return real(*args)

        disk.instead[name] = call

    async def entered(self) -> None:
        async with asyncio.timeout(30):
            await self._entered.wait()

    def open(self) -> None:
        self._open.set()
