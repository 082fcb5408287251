"""The C library's heaps: few, for all threads together, and what is free in them goes back to the system.

glibc gives each thread one of its own, and what one has freed serves no other. Sixteen threads that read
transcripts in turn, thirty of 256 messages forty times over, held 102 MiB in the end, and 75 with two heaps.

What is freed stays with the process, but for the very end of a heap: after an hour of load with a fault each
minute 29 of 56 MiB were free.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import Any

_ARENA_MAX = -8  # M_ARENA_MAX of <malloc.h>
_HEAPS = 2
_SECONDS = 60.0


def share() -> None:
    """Let all threads share two heaps, unless MALLOC_ARENA_MAX says how many; call it before there are any.

    Another C library than glibc is left as it is.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    if mallopt := _found("mallopt"):
        mallopt(_ARENA_MAX, _HEAPS)


async def keep_small() -> None:
    """Give back what is free, once a minute; goes on until cancelled.

    It takes 0.3 ms a MiB, in a thread: whoever needs memory meanwhile waits for a part of that. Another C
    library than glibc is left as it is.
    """
    while trim := _found("malloc_trim"):
        await asyncio.sleep(_SECONDS)
        await asyncio.to_thread(trim, 0)


def _found(name: str) -> Any:
    """A function of the C library, None where it has none of this name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
