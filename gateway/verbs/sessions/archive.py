"""`lunar sessions archive`: compress conversations now, whatever the configuration says."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway import ask, config_file
from gateway.config import Config
from gateway.errors import BadArgument, CannotCreate, Held, NotRunning
from gateway.verbs.sessions.finding import disk, find, latest_first
from gateway.verbs.sessions.printing import count, printable
from gateway.verbs.sessions.progress import bar
from gateway.verbs.sessions.source import Files
from session.errors import StoreLocked
from session.ids import SessionId
from session.store import Store

Archive = Callable[[SessionId], str | None]  # compresses one, or says why not
_DAY = 86_400.0


def main(config: str | None, sessions: list[str], days: float | None) -> int:
    """Compress these sessions, or all in which nothing was said for so many days.

    Exits 1 where one that was named could not be. Raises `GatewayError`.
    """
    if bool(sessions) == (days is not None):
        raise BadArgument("Say which sessions, or --days.")
    if days is not None and not 0 <= days < math.inf:  # nor is it "not a number"
        raise BadArgument("--days takes a number from 0 on.")
    settings = config_file.load(config)
    if settings.store.url is not None:
        raise BadArgument("Sessions in a database are not archived: PostgreSQL compresses long lines itself.")
    with disk():
        asked = _asked(settings.data_dir, sessions, days or 0.0)
    archived = 0
    with _archiver(settings) as archive, bar("Archiving", len(asked)) as advance:
        for session in asked:
            if why := archive(session):
                print(f"{printable(session)} stays as it is: {why}.", file=sys.stderr)
            archived += why is None
            advance(1)
    print(f"{count(archived, 'session')} archived.")
    return 1 if sessions and archived < len(asked) else 0


def _asked(data_dir: Path, sessions: list[str], days: float) -> list[SessionId]:
    files = Files(data_dir)
    return [find(files, name) for name in sessions] or _older(data_dir, days)


def _older(data_dir: Path, days: float) -> list[SessionId]:
    before = time.time() - days * _DAY
    return [
        entry.session
        for entry in latest_first(Files(data_dir))
        if not entry.archived and entry.modified < before
    ]


@contextmanager
def _archiver(settings: Config) -> Iterator[Archive]:
    try:
        ask.control(settings.socket, "status")
    except NotRunning:
        with _alone(settings.data_dir) as archive:
            yield archive
        return
    yield lambda session: _told(ask.control(settings.socket, "archive", {"session": session}))


def _told(answer: dict[str, str | None]) -> str | None:
    return answer["why"]


@contextmanager
def _alone(data_dir: Path) -> Iterator[Archive]:
    store = Store(data_dir)
    try:
        store.start()
    except StoreLocked as error:
        raise Held(f"A gateway is running but does not answer: {error}.") from error
    except OSError as error:
        raise CannotCreate(f"{data_dir}: {error.strerror or error}.") from error
    with asyncio.Runner() as runner:
        try:
            with disk():
                yield lambda session: runner.run(store.archive(session))
        finally:
            runner.run(store.close())
