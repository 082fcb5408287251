"""Fuzzing by coverage, in a process of its own: `python -m tests.faults.fuzzing TARGET SEED RUNS SECONDS`.

With atheris (libFuzzer) where it is installed, which is told what a change of structure is; without it
blindly, by the same changes. Prints one line of JSON; what broke a promise is in its `failed`, as base64.
"""

from __future__ import annotations

import base64
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.spoiling import spoiled

OURS = ["session", "channels", "gateway"]
_LARGEST = 16_384
_INSTALL = "To have it (Linux on x86-64): .venv/bin/pip install -c constraints.txt -e '.[dev,torture]'"


class Run:
    """Counts what is tried, and keeps the first that failed."""

    def __init__(self, target: str, seed: int, runs: int, seconds: float, engine: str) -> None:
        self.figures: dict[str, Any] = {"target": target, "seed": seed, "engine": engine}
        self.count = 0
        self.failed: str | None = None
        self.why = ""
        self._runs, self._began, self._seconds = runs, time.monotonic(), seconds

    def tries(self, run: Callable[[bytes], object], data: bytes) -> bool:
        """Whether to go on after this one."""
        self.count += 1
        try:
            run(data)
        except Exception as error:
            self.failed, self.why = base64.b64encode(data).decode(), repr(error)
            return False
        return self.count < self._runs and time.monotonic() - self._began < self._seconds

    def told(self) -> str:
        seconds = round(time.monotonic() - self._began)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # MiB, its highest
        more = {"runs": self.count, "seconds": seconds, "memory_mib": memory, "failed": self.failed}
        return json.dumps(self.figures | more | ({"why": self.why} if self.failed else {}))


def _blindly(run: Run, target: Any, dice: random.Random) -> None:
    pool = list(target.valid)
    while run.tries(target.run, data := spoiled(dice.choice(pool), dice)[:_LARGEST]):
        if dice.random() < 0.01 and len(pool) < 1000:
            pool.append(data)


def _guided(run: Run, target: Any, seed: int, atheris: Any) -> None:
    from tests.faults.targets import scratch

    corpus = tempfile.mkdtemp(prefix="lunar-corpus-")

    def one(data: bytes) -> None:
        if not run.tries(target.run, data):
            print(run.told(), flush=True)
            shutil.rmtree(corpus)
            shutil.rmtree(scratch())
            os._exit(1 if run.failed else 0)  # libFuzzer has no other way out

    def change(data: bytes, most: int, number: int) -> bytes:
        dice = random.Random(number)
        if dice.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return spoiled(data if data.strip(b"\n\0") else dice.choice(target.valid), dice)[:most]

    arguments = [
        f"-seed={seed % (1 << 31) or 1}",
        f"-max_len={_LARGEST}",
        "-rss_limit_mb=2048",
        "-verbosity=0",
    ]
    for number, data in enumerate(target.valid):
        Path(corpus, str(number)).write_bytes(data)
    atheris.Setup([sys.argv[0], *arguments, corpus], one, custom_mutator=change)
    atheris.Fuzz()


def main(name: str, seed: int, runs: int, seconds: float) -> int:
    """Fuzz one target until it fails, or `runs` or `seconds` are over."""
    try:
        import atheris
    except ImportError:
        from tests.faults.targets import TARGETS, scratch

        print("atheris is not installed, so nothing guides this by coverage.", _INSTALL, file=sys.stderr)
        run = Run(name, seed, runs, seconds, "mutations")
        _blindly(run, TARGETS[name], random.Random(seed))
        shutil.rmtree(scratch())
        print(run.told())
        return 1 if run.failed else 0
    with atheris.instrument_imports(include=OURS):
        from tests.faults.targets import TARGETS
    run = Run(name, seed, runs, seconds, "atheris")
    _guided(run, TARGETS[name], seed, atheris)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
