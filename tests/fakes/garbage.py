"""What only the garbage collector can free: with an event loop to hold up, it has its time rarely."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


class Garbage:
    """`of` gives the kinds of objects of these packages that were left in cycles."""

    def __init__(self) -> None:
        self._found: set[str] = set()

    def of(self, *packages: str) -> set[str]:
        return {kind for kind in self._found if kind.split(".")[0] in packages}

    def collect(self) -> None:
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            self._found |= {f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()


@contextmanager
def garbage() -> Iterator[Garbage]:
    """Collect nothing meanwhile; in the end, what was left."""
    left = Garbage()
    gc.collect()
    gc.disable()
    try:
        yield left
        left.collect()
    finally:
        gc.enable()
