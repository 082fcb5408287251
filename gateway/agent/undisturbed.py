"""A transport of the MCP library in a task of its own, which nobody cancels.

The library ends a program within seconds; broken off at that, it would leave it alive, and wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


@asynccontextmanager
async def undisturbed(transport: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """What the transport gives; it is left when the block is, and then waited for."""
    opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    left = asyncio.Event()

    async def hold() -> None:
        async with transport as streams:
            opened.set_result(streams)
            await left.wait()

    task = asyncio.create_task(hold())
    try:
        either: set[asyncio.Future[Any]] = {task, opened}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield opened.result()
    finally:
        left.set()
        await _over(task)


async def _over(task: asyncio.Task[None]) -> None:
    """Wait until it is, however often we are cancelled meanwhile; raises what it has raised."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled:
        task.exception()  # it is of no interest any more
        raise cancelled
    task.result()
