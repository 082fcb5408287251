"""Which session somebody means, and where it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import NoSuchSession, Unreadable
from gateway.verbs.sessions.printing import printable
from gateway.verbs.sessions.source import Source
from session import ids
from session.errors import SessionError
from session.events import Event
from session.ids import SessionId
from session.listing import Entry

_PAGE = 256


@contextmanager
def disk() -> Iterator[None]:
    """What the disk, or the database, refuses becomes `Unreadable`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Unreadable(f"{where}{error.strerror or error}") from error


def find(source: Source, session: str) -> SessionId:
    """The session of that id, or of that peer id on the local socket, such as `work`.

    Raises `NoSuchSession`.
    """
    for id in _meant(session):
        if source.holds(id):
            return id
    known = [entry.session for entry in source.entries()]
    near = difflib.get_close_matches(session, known, 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else "`lunar sessions list` shows all."
    raise NoSuchSession(printable(f"There is no session {session}. {hint}"))


def expected(source: Source, session: str) -> SessionId:
    """The session that is meant, there or yet to be made; raises `NoSuchSession` where none can be."""
    try:
        return find(source, session)
    except NoSuchSession:
        for id in _meant(session):
            return id
        raise


def _meant(session: str) -> Iterator[SessionId]:
    for id in (session, f"agent:main:cli:{session}"):
        try:
            ids.parse(id)
        except SessionError:
            continue
        yield SessionId(id)


def latest_first(source: Source) -> list[Entry]:
    """Every session; raises `Unreadable`."""
    with disk():
        return sorted(source.entries(), key=lambda entry: -entry.modified)


def events(source: Source, session: SessionId) -> Iterator[tuple[Event, bytes]]:
    """The events of a session and their JSON, wherever it is.

    Raises `Unreadable`, of a damaged archive behind everything that can be read of it.
    """
    transcript, damage = source.opened(session)
    try:
        cursor: str | None = None
        while records := transcript.after(cursor, _PAGE):
            for record in records:
                yield record.event, record.json()
            cursor = records[-1].cursor
    finally:
        transcript.close()
    if damage is not None:
        raise Unreadable(f"{damage.strerror}. What stands before that was read.")
