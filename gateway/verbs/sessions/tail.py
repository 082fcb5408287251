"""`lunar sessions tail`: the end of a transcript, and what is added to it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from gateway import config_file
from gateway.verbs.sessions import source
from gateway.verbs.sessions.finding import disk, expected, find
from gateway.verbs.sessions.printing import printable, printable_json, readable
from gateway.verbs.sessions.source import Source
from session.events import Record
from session.ids import SessionId

_LOOK_EVERY = 0.2  # seconds


def main(config: str | None, session: str, lines: int, follow: bool, as_json: bool) -> int:
    """Print the last events; with `follow` go on until Ctrl-C, also with a session that is yet to be made.

    Raises `NoSuchSession`, `Unreadable`.
    """
    at = source.of(config_file.load(config))
    with disk():
        id = expected(at, session) if follow else find(at, session)
        for record in _records(at, id, lines, follow):
            line = printable_json(record.json()) if as_json else printable(readable(record.event))
            print(line, flush=follow)
    return 0


def _records(at: Source, session: SessionId, last: int, follow: bool) -> Iterator[Record]:
    growing = at.growing(session)
    yield from growing.last(last)
    while follow:
        yield from growing.news()
        time.sleep(_LOOK_EVERY)
