"""The standard streams of a command, whatever it was started with."""

from __future__ import annotations

import io
import os
import sys


def prepare() -> None:
    """Lead those that were closed nowhere; print UTF-8 into files and pipes in any locale.

    A terminal gets what it can show.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # its number is the lowest that is free: no other file gets it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="replace")


def settle() -> None:
    """Drop what was printed and cannot be written: at its end the interpreter would try again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
