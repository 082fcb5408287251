"""`lunar sessions export --to`: sessions as they are stored, as the files of a data directory."""

from __future__ import annotations

from pathlib import Path

from gateway import config_file
from gateway.errors import BadArgument
from gateway.verbs.sessions import source
from gateway.verbs.sessions.finding import disk, find
from gateway.verbs.sessions.moving import folder, move
from session.ids import SessionId


def main(config: str | None, sessions: list[str], to: Path) -> int:
    """Write these sessions, or all, below `to`, also while gateways run; exits 1 where one could not be.

    `lunar sessions import` takes it, and so does a gateway with that data_dir. Raises `Held` where a gateway
    runs on it, `NoSuchSession`, `Unreadable`, `CannotCreate`.
    """
    settings = config_file.load(config)
    at = source.of(settings)
    if settings.store.url is None and to.resolve() == settings.data_dir.resolve():
        raise BadArgument(f"{to} is this store's own directory: choose another one.")
    with disk():
        named: set[SessionId] = {find(at, name) for name in sessions}
        entries = sorted(entry for entry in at.entries() if not sessions or entry.session in named)
        with folder(to) as target:
            tally = move(at, entries, target, "Exporting")
    return tally.told("exported")
