"""The secret of a session at a remote gateway: who holds it holds the conversation."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from channels.cli.carrier import CANNOT_CREATE, CannotChat

_WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{43}")


class SecretFile:
    """One secret per gateway and session name, in a file that nobody else can read."""

    def __init__(self, state_dir: Path, url: str, session: str) -> None:
        digest = hashlib.sha256(f"{url}\n{session}".encode()).hexdigest()
        self._path = state_dir / f"session-{digest[:16]}"

    def read(self) -> str | None:
        """The secret kept here; None where there is none, or something that is no secret."""
        try:
            text = self._path.read_text("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure(error) from error
        return text if _WELL_FORMED.fullmatch(text) else None

    def write(self, secret: str) -> None:
        """Keep the secret (0600, atomically); raises `CannotChat`."""
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="ascii") as file:
                file.write(secret + "\n")
                file.flush()
                os.fsync(fd)
            fresh.replace(self._path)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> CannotChat:
        return CannotChat(
            f"The session's secret cannot be kept in {self._path}: {error.strerror}.", CANNOT_CREATE
        )
