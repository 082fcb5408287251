"""What a person at a terminal sees when the gateway has started: where it is, and what to do next."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gateway import __version__


def show(url: str, data_dir: Path) -> None:
    """Print it to stderr, where the log goes too."""
    rows = [
        ("in the browser", url),
        ("in another terminal", f"{_command()} chat"),
        ("what is said is kept in", str(data_dir)),
        ("to stop", "Ctrl-C"),
    ]
    width = max(len(label) for label, _ in rows)
    lines = [f"  {label:<{width}}   {value}" for label, value in rows]
    print("\n".join(["", f"  Lunar {__version__} is ready.", "", *lines, ""]), file=sys.stderr, flush=True)


def _command() -> str:
    """How this very program is called from the person's shell."""
    called = sys.argv[0]
    if Path(called).name != "lunar":
        return "lunar"
    return "lunar" if os.sep not in called else os.path.relpath(called)
