"""Conversations that nobody goes on with are compressed after a while; none is ever deleted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from gateway.router import Router
from session.ids import SessionId

log = structlog.get_logger(__name__)

_EVERY = 3600.0  # seconds between two looks at all sessions


class Retention:
    """Archives the sessions that were not changed for `after` (None: none); `clock` gives Unix seconds."""

    def __init__(
        self, router: Router, after: timedelta | None, clock: Callable[[], float] = time.time
    ) -> None:
        self.after = after  # may be changed while it runs
        self._router = router
        self._clock = clock
        self._told: set[str] = set()  # names of transcripts whose archive holds something else

    async def run(self) -> None:
        """Look once an hour, until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(_EVERY)

    async def round(self) -> int:
        """Archive what is due; returns how many sessions that was."""
        archived = 0
        try:
            await self._tidy()
            for session in await self._due():
                archived += await self._router.archive(session) is None
        except OSError as error:
            log.warning("sessions could not be archived", error=str(error))
        if archived:
            log.info("sessions were archived", sessions=archived)
        return archived

    async def _due(self) -> list[SessionId]:
        if self.after is None:
            return []
        before = self._clock() - self.after.total_seconds()
        entries = await self._router.store.listing()
        return [entry.session for entry in entries if not entry.archived and entry.modified < before]

    async def _tidy(self) -> None:
        for name in await self._router.store.tidy_archive():
            if name not in self._told:
                self._told.add(name)
                log.warning("an archive beside its transcript holds something else", transcript=name)
