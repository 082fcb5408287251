"""`lunar sessions show`."""

from __future__ import annotations

from gateway import config_file
from gateway.verbs.sessions.finding import disk, events, find
from gateway.verbs.sessions.printing import printable, printable_json, readable


def main(config: str | None, session: str, as_json: bool) -> int:
    """Print one transcript; raises `NoSuchSession`, `Unreadable`."""
    data_dir = config_file.load(config).data_dir
    with disk():
        for event, line in events(data_dir, find(data_dir, session)):
            print(printable_json(line) if as_json else printable(readable(event)))
    return 0
