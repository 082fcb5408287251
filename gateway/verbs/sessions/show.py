"""`lunar sessions show`."""

from __future__ import annotations

from gateway import config_file
from gateway.verbs.sessions import source
from gateway.verbs.sessions.finding import disk, events, find
from gateway.verbs.sessions.printing import printable, printable_json, readable


def main(config: str | None, session: str, as_json: bool) -> int:
    """Print one transcript; raises `NoSuchSession`, `Unreadable`."""
    at = source.of(config_file.load(config))
    with disk():
        for event, line in events(at, find(at, session)):
            print(printable_json(line) if as_json else printable(readable(event)))
    return 0
