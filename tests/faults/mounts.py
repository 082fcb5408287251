"""File systems of one's own, which the machine does not see: a mount namespace, kept by a process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from tests.requirement import missing, program

# Root may write everywhere; where a test takes a permission away, that must count.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


class Mounts:
    """Lives until the block ends. Everything mounted in it stays while the programs in it come and go."""

    async def __aenter__(self) -> Self:
        for name in ("unshare", "nsenter", "setpriv", "mount"):
            program(name)
        self._keeper = await asyncio.create_subprocess_exec(
            "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo up; exec cat",
            stdin=asyncio.subprocess.PIPE,  # ends with us, however we end
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        if await self._keeper.stdout.readline() != b"up\n":
            _, why = await self._keeper.communicate()
            missing(f"no file system of one's own may be mounted here: {why.decode().strip()}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        await self._keeper.wait()

    @property
    def within(self) -> list[str]:
        """What runs a program in it, in this program's directory."""
        target = f"--target={self._keeper.pid}"
        return ["nsenter", target, "--user", "--mount", "--preserve-credentials", "--wd=."]

    def seen(self, path: Path) -> Path:
        """A path in it, as the programs outside see it."""
        return Path(f"/proc/{self._keeper.pid}/root{path}")

    async def run(self, *command: str | Path) -> None:
        """Run a command in it; raises `AssertionError` with what it said where it fails."""
        process = await asyncio.create_subprocess_exec(
            *self.within, *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        assert not process.returncode, f"{command}: {said.decode()}"
