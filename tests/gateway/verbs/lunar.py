"""The `lunar` command as a process of its own, and transcripts for it to look at."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.__main__ import main
from session import archive, events, ids
from session.events import Event, System
from session.transcript import Transcript
from tests.fakes import forking
from tests.gateway.environment import cleared

ROOT = Path(__file__).parents[3]
LOCAL = "agent:main:cli:local"
TIMEOUT = 20.0  # seconds


class Ran(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str


async def lunar(*arguments: str, cwd: Path, stdin: bytes = b"", **environment: str) -> Ran:
    """Run `lunar` in a folder, with nothing of this machine's configuration."""
    env = plain_environment(cwd) | environment
    if forking.possible("gateway", env):
        code, said, complained = await forking.ran(
            "gateway", *arguments, cwd=cwd, env=env, stdin=stdin, timeout=TIMEOUT
        )
        return Ran(code, said.decode(), complained.decode())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments,
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin), TIMEOUT)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def plain_environment(home: Path) -> dict[str, str]:
    return cleared(dict(os.environ)) | {"HOME": str(home), "PYTHONPATH": str(ROOT), "TZ": "UTC"}


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run `lunar` in this process."""
    code = main(arguments)
    captured = capsys.readouterr()
    return Ran(code, captured.out, captured.err)


def archived(data_dir: Path, session: str = LOCAL) -> Path:
    """Put a session into the archive, as the gateway does; returns where it is there."""
    name = ids.file_name(session)
    assert archive.pack(data_dir, name)
    return archive.path_of(data_dir, name)


def path(data_dir: Path, session: str = LOCAL) -> Path:
    return data_dir / "sessions" / ids.file_name(session)


def wrote(data_dir: Path, *said: Event, session: str = LOCAL) -> Path:
    """A transcript as the gateway writes it: a header, then these events."""
    file = path(data_dir, session)
    file.parent.mkdir(parents=True, exist_ok=True)
    header = System(name="session", content=session, format=events.FORMAT)
    transcript = Transcript(file, writable=True, header=header)
    try:
        transcript.append([events.stamped(event) for event in said])
    finally:
        transcript.close()
    return file
