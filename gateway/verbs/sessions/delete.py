"""`lunar sessions delete`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway import ask, config_file
from gateway.config import Config
from gateway.errors import CannotCreate, Held, NotRunning
from gateway.verbs.sessions import source
from gateway.verbs.sessions.finding import disk, find
from gateway.verbs.sessions.printing import printable
from session import listing
from session.errors import StoreLocked
from session.ids import SessionId
from session.lock import DirectoryLock


def main(config: str | None, session: str, yes: bool) -> int:
    """Remove a transcript for good, by the daemon where one runs; asks first. Raises `GatewayError`."""
    settings = config_file.load(config)
    with disk():
        id = find(source.of(settings), session)
    if not yes and not _confirmed(id):
        print("Nothing was deleted.", file=sys.stderr)
        return 1
    try:
        ask.control(settings.socket, "delete", {"session": id})
    except NotRunning:
        _delete_alone(settings, id)
    print(f"{printable(id)} is deleted.")
    return 0


def _delete_alone(settings: Config, session: SessionId) -> None:
    if settings.store.url is None:
        _delete_file(settings.data_dir, session)
        return
    from session.postgres import PostgresStore

    async def work(store: PostgresStore) -> None:
        await store.open()
        try:
            await store.delete(session)
        finally:
            await store.close()

    with disk():
        store = PostgresStore(settings.store.url.get_secret_value(), settings.data_dir, None, connections=1)
        asyncio.run(work(store))


def _delete_file(data_dir: Path, session: SessionId) -> None:
    lock = DirectoryLock(data_dir)
    try:
        lock.acquire()
        listing.remove(data_dir, session)
    except StoreLocked as error:
        raise Held(f"A gateway is running but does not answer: {error}.") from error
    except OSError as error:
        raise CannotCreate(f"{printable(session)} cannot be deleted: {error.strerror or error}.") from error
    finally:
        lock.release()


def _confirmed(session: str) -> bool:
    if not sys.stdin.isatty():
        print("Not asked because there is no terminal; use --yes.", file=sys.stderr)
        return False
    print(f"Delete {printable(session)} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)  # Ctrl-D
    return answer.strip().lower() in ("y", "yes")
