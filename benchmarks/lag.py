"""The gateway with a probe in its event loop: for how long did nobody else have a turn?

`python -m benchmarks.lag run` is `lunar run`, and keeps two figures in the file that `BENCH_LAG` names.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_FIGURES = struct.Struct("dd")
_PAUSE = 0.001  # seconds between two looks


class Worst(NamedTuple):
    """Seconds: by which the probe came too late, and of CPU that the loop's thread took without a pause.

    The second is what our own code is to blame for: the first has what other processes took, too.
    """

    late: float
    cpu: float


class Lag:
    """The figures, as the parent of the probed gateway sees them."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_FIGURES.size))
        self.environment = {"BENCH_LAG": str(path)}
        self._path = path

    def reset(self) -> None:
        """Begin anew."""
        with self._path.open("r+b") as file:
            file.write(bytes(_FIGURES.size))

    @property
    def worst(self) -> Worst:
        """The worst since then."""
        return Worst(*_FIGURES.unpack(self._path.read_bytes()))


@contextmanager
def lag() -> Iterator[Lag]:
    """A probe for a gateway that is started with `program="benchmarks.lag", **lag.environment`."""
    with tempfile.TemporaryDirectory(prefix="lunar-bench-") as folder:
        yield Lag(Path(folder) / "lag")


async def probe(tell: Callable[[Worst], object]) -> None:
    """Tell of each look at this loop, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due, used = loop.time() + _PAUSE, time.thread_time()
        await asyncio.sleep(_PAUSE)
        tell(Worst(loop.time() - due, time.thread_time() - used))


def _run() -> None:
    from gateway.__main__ import main
    from gateway.daemon import Daemon

    run = Daemon.run

    with Path(os.environ["BENCH_LAG"]).open("r+b") as file:
        figures = mmap.mmap(file.fileno(), _FIGURES.size)

    def keep(found: Worst) -> None:
        late, cpu = _FIGURES.unpack(figures[:])
        figures[:] = _FIGURES.pack(max(late, found.late), max(cpu, found.cpu))

    async def probed(daemon: Daemon) -> None:
        probing = asyncio.create_task(probe(keep))
        try:
            await run(daemon)
        finally:
            probing.cancel()

    Daemon.run = probed  # type: ignore[method-assign] # that is what this program is for
    main()


if __name__ == "__main__" and sys.argv[1:] == ["run"]:
    _run()
