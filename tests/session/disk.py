"""`os`, counted and failing on request."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]


class Disk:
    """Stands for the `os` module: every function is the real one, until a test says otherwise."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.instead: dict[str, Call] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if not callable(real) or isinstance(real, type):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            return self.instead.get(name, real)(*args, **kwargs)

        return call

    def fail(self, name: str, error: int, *, at: int = 1, times: int = 1) -> None:
        """Let the `at`-th call from now on fail with this errno, and those after it, `times` in all."""
        real = self.instead.get(name) or getattr(os, name)
        left = [at - 1, times]

        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0]:
                left[0] -= 1
            elif left[1]:
                left[1] -= 1
                raise OSError(error, os.strerror(error))
            return real(*args, **kwargs)

        self.instead[name] = call

    def shorten(self, size: int) -> None:
        """Let the next write take only so many bytes."""
        real = self.instead.get("write") or os.write
        left = [1]

        def write(fd: int, data: bytes) -> int:
            if left[0] and len(data) > size:
                left[0] = 0
                return int(real(fd, data[:size]))
            return int(real(fd, data))

        self.instead["write"] = write

    def heal(self, *names: str) -> None:
        """Let these functions (all, where none is named) be the real ones again."""
        for name in names or list(self.instead):
            self.instead.pop(name, None)
