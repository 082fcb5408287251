"""What has to be done every few seconds: try a store that failed, let go of idle lanes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from gateway import counters
from gateway.router import Router
from session.protocols import TranscriptStore

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 15.0
_SECONDS = 2.0


class Caretaker:
    """`run` is a chore of the daemon; `tell` says every time how the gateway is."""

    def __init__(self, store: TranscriptStore, router: Router, tell: Callable[[], None]) -> None:
        self._store = store
        self._router = router
        self._tell = tell
        self._told: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Go on until cancelled."""
        swept, clock = time.monotonic(), asyncio.get_running_loop().time
        while True:
            self._tell()
            due = clock() + _SECONDS
            await asyncio.sleep(_SECONDS)
            counters.LOOP_LAG_SECONDS.observe(max(0.0, clock() - due))
            if self._store.fault:
                await self._store.probe()
            self._report()
            if time.monotonic() - swept > _SWEEP_SECONDS:
                swept = time.monotonic()
                await self._router.sweep()

    def _report(self) -> None:
        """Log what readers met on the way."""
        while self._store.repaired:
            log.warning("a torn line was cut off and kept beside", transcript=self._store.repaired.pop())
        while self._store.salvaged:
            log.warning("a damaged archive came back in part", transcript=self._store.salvaged.pop())
        for name, place in sorted(self._store.skipped - self._told):
            log.warning("a damaged line was passed over", transcript=name, place=place)
        self._told |= self._store.skipped

    async def probe(self) -> None:
        """What the watchdog asks for: lanes open and close, and the disk answers, be it with an error.

        A full disk is told in /healthz; a restart would not help against it, nor against a dead model.
        """
        await self._store.probe()
        if self._router.nodes and self._store.fault:
            return  # a database that is silent takes longer to say so twice than the watchdog waits
        await self._router.probe()
