"""A conversation as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Iterator

from session.events import Event, now
from session.ids import SessionId


def pieces(session: SessionId, said: Iterator[tuple[Event, bytes]]) -> Iterator[str]:
    """`{"session", "exported", "events"}`, with each event as it is stored, without its checksum."""
    yield f'{{"session": {json.dumps(session)},\n "exported": "{now()}",\n "events": ['
    comma = ""
    for _, line in said:
        yield f"{comma}\n  {line.decode()}"
        comma = ","
    yield "\n ]}\n"
