"""A process that ends with the gateway: whatever kills that one, this one's whole group goes along.

Everything here is of the standard library, and little of it: a program is started through it with
`python -I -S leash.py <the gateway's pid> <program> <argument>…`, in a session of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys


def hold(gateway: int) -> None:
    """Go on in a child; the parent stays behind and kills the whole group when the child or the gateway ends.

    Two processes, because the group of one that was told to die with the gateway (`PR_SET_PDEATHSIG`) would
    outlive both.
    """
    watched = os.pidfd_open(gateway)
    if os.getppid() != gateway:
        _end_all()  # it died before, and its number may be somebody else's by now
    if not (child := os.fork()):
        os.close(watched)
        return
    # A polite end is the child's business; and its pipes must close when it ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    select.select([watched, os.pidfd_open(child)], [], [])
    _end_all()  # what the child has started may hold its pipes, and nobody would notice that it has ended


def _end_all() -> None:
    os.killpg(0, signal.SIGKILL)


def kill(group: int) -> None:
    """End every process of a group at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Run a program on the leash."""
    gateway, *command = arguments
    hold(int(gateway))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what is started would inherit that
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
