"""What the long form measures: one line of JSON each, printed (and appended to LUNAR_TEST_FIGURES)."""

from __future__ import annotations

import json
import os
from pathlib import Path

TORTURE = bool(os.environ.get("LUNAR_TEST_TORTURE"))  # the long form
_FILE = os.environ.get("LUNAR_TEST_FIGURES")  # read now: some tests clear their environment


def figure(measurement: str, **values: object) -> None:
    """Tell one measurement."""
    line = json.dumps({"measurement": measurement, **values})
    print(line)
    if _FILE:
        with Path(_FILE).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
