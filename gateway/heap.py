"""The C library's heaps: few, for all threads together.

glibc gives each thread one of its own, and what one has freed serves no other. Sixteen threads that read
transcripts in turn, thirty of 256 messages forty times over, held 102 MiB in the end, and 75 with two heaps.
"""

from __future__ import annotations

import ctypes
import os

_ARENA_MAX = -8  # M_ARENA_MAX of <malloc.h>
_HEAPS = 2


def share() -> None:
    """Let all threads share two heaps, unless MALLOC_ARENA_MAX says how many; call it before there are any.

    Another C library than glibc is left as it is.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_ARENA_MAX, _HEAPS)
