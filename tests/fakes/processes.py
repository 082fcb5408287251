"""Processes of other programs: whether they have ended, and waiting until something is so."""

import asyncio
from collections.abc import Callable
from pathlib import Path


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def below(pid: int) -> dict[int, str]:
    """The processes that a process started, and those that these did: the command line of each."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except FileNotFoundError:
            continue  # a thread that has ended meanwhile
        for child in map(int, children):
            command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            found |= {child: command} | below(child)
    return found


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that no event of ours tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - as the docstring says
            await asyncio.sleep(0.01)
