"""`lunar sessions list`."""

from __future__ import annotations

import sys
import time

from gateway import config_file
from gateway.verbs.sessions import source
from gateway.verbs.sessions.finding import latest_first
from gateway.verbs.sessions.printing import iso, print_json, printable, size


def main(config: str | None, as_json: bool) -> int:
    """Print every session, latest first; raises `Unreadable`."""
    at = source.of(config_file.load(config))
    found = latest_first(at)
    if as_json:
        for entry in found:
            print_json(
                session=entry.session, bytes=entry.size, modified=iso(entry.modified), archived=entry.archived
            )
        return 0
    if not found:
        print(f"No sessions in {at.place}.", file=sys.stderr)
    width = max((len(entry.session) for entry in found), default=0)
    for entry in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.modified))
        archived = "  archived" if entry.archived else ""
        print(f"{printable(entry.session):<{width}}  {when}  {size(entry.size):>9}{archived}")
    return 0
