"""The gateway with a clock that jumps and a loop that stands still: `python -m tests.faults.skewed run …`.

SKEW names a file that holds seconds, which are added to the wall clock as long as they are in it. SIGUSR1
lets the event loop stand still for STALL seconds.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
import time
from pathlib import Path

_real_time, _real_datetime = time.time, datetime.datetime


def _skew() -> float:
    try:
        return float(Path(os.environ["SKEW"]).read_text())
    except (FileNotFoundError, ValueError):
        return 0.0


class _Skewed(_real_datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _real_datetime:  # type: ignore[override] # no Self in it
        return _real_datetime.now(tz) + datetime.timedelta(seconds=_skew())


def arm() -> None:
    """Before anything of ours is imported."""
    time.time = lambda: _real_time() + _skew()
    datetime.datetime = _Skewed  # type: ignore[misc] # that is what this is for
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(float(os.environ["STALL"])))


if __name__ == "__main__":
    arm()
    from gateway.__main__ import main

    sys.exit(main())
