"""What takes long the first time, because it loads large libraries, is done beside the event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def beside(work: Callable[[], T]) -> T:
    """The outcome of work that imports, or makes what imports more by itself.

    Nothing is garbage-collected meanwhile, and what there is afterwards is left out of all later passes: one
    over the hundred thousand objects of a library holds the event loop up for 50 ms, from whatever thread.
    """
    return await asyncio.to_thread(_uncollected, work)


def _uncollected(work: Callable[[], T]) -> T:
    gc.disable()
    try:
        return work()
    finally:
        gc.freeze()
        gc.enable()
