"""A bar on stderr while something takes long; nothing where nobody is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(label: str, total: int, *, bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Show how much of `total` is done; the given function takes what was done since its last call."""
    if not total or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    amount = DownloadColumn(binary_units=True) if bytes else MofNCompleteColumn()
    shown = Progress(
        "{task.description}", BarColumn(), amount, TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty(),
    )  # fmt: skip
    with shown:
        task = shown.add_task(label, total=total)
        yield lambda done: shown.advance(task, done)
