"""The secret of a session at a remote gateway: who holds it holds the conversation."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from pathlib import Path

from channels.cli.carrier import CANNOT_CREATE, CannotChat

_WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{43}")


class SecretFile:
    """One secret per gateway and session name, in a file that nobody else can read.

    It is made here, not by the gateway: two commands that first connect at once have the same session.
    """

    def __init__(self, state_dir: Path, url: str, session: str) -> None:
        digest = hashlib.sha256(f"{url}\n{session}".encode()).hexdigest()
        self._path = state_dir / f"session-{digest[:16]}"

    def read(self) -> str:
        """The secret; where there is none, or something that is none, a new one. Raises `CannotChat`."""
        try:
            return self._kept() or self._made()
        except OSError as error:
            why = f"The session's secret cannot be kept in {self._path}: {error.strerror}."
            raise CannotChat(why, CANNOT_CREATE) from error

    def _kept(self) -> str | None:
        try:
            text = self._path.read_text("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        return text if _WELL_FORMED.fullmatch(text) else None

    def _made(self) -> str:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if kept := self._kept():  # by another process, meanwhile
                return kept
            os.fchmod(fd, 0o600)
            file.truncate()
            file.write((secret := secrets.token_urlsafe(32)) + "\n")
            file.flush()
            os.fsync(fd)
        return secret
