"""The one file that all long forms append to, a JSON object a line: artifacts/torture.jsonl.

LUNAR_TEST_RESULTS names another one.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]

RESULTS = Path(
    os.environ.get("LUNAR_TEST_RESULTS") or Path(__file__).parents[2] / "artifacts" / "torture.jsonl"
)
REPEATED_BY = ("piece", "n", "seed", "first")  # what tells one trial from another
# What a failure says, and which promise that breaks; the first that fits.
_KINDS = {
    "leaked": r"a secret",
    "crossed": r"somebody else's|got words of|together in one place|share '|nobody should make|was deleted",
    "twice": r"twice|out of order|runs beside|goes on after",
    "corrupt": r"torn|damaged|without a checksum|changed|never sent|second start",
    "lost": r"lost|forgotten|never came|not answered|missing|is shown|asked .*closed",
}
KINDS = ("lost", "twice", "corrupt", "crossed", "leaked")


def results(part: str) -> list[Line]:
    """What this part has come to so far."""
    if not RESULTS.exists():
        return []
    lines = (json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["part"] == part]


def note(part: str, **members: Any) -> Line:
    """Append a result."""
    RESULTS.parent.mkdir(exist_ok=True)
    line = json.dumps({"part": part, **members})
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line, flush=True)
    return json.loads(line)  # type: ignore[no-any-return] # an object, as it was made


def quiet() -> None:
    """The fakes' server logs each request that was broken off, which is what this is for."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def latest(lines: Iterable[Line]) -> list[Line]:
    """The last result of each trial: what failed and holds when it is repeated is mended."""
    return list({tuple(line.get(name) for name in REPEATED_BY): line for line in lines}.values())


def passed(part: str) -> list[Line]:
    return [line for line in latest(results(part)) if not line.get("failure")]


def failed(part: str) -> list[Line]:
    return [line for line in latest(results(part)) if line.get("failure")]


def kinds(failures: Iterable[Line]) -> Counter[str]:
    """How many broke which promise; `other` is what breaks none of the five."""
    return Counter(map(_kind, failures))


def _kind(line: Line) -> str:
    found = (kind for kind, pattern in _KINDS.items() if re.search(pattern, line["failure"]))
    return next(found, "other")
