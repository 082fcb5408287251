"""The updates that could not be taken in, kept for whoever looks into it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import structlog

from channels.telegram.journal import Journal
from session.events import now

log = structlog.get_logger(__name__)

FILE = "telegram-dead-letters.jsonl"


class DeadLetters:
    """A file of `{"ts", "why", "update"}`, with each update as Telegram sent it."""

    def __init__(self, data_dir: Path) -> None:
        self.count = 0  # since the start
        self._journal = Journal(data_dir / FILE)
        self._kept: set[bytes] | None = None  # fingerprints of what the file holds; None until it was read

    async def keep(self, update: Any, why: str) -> None:
        """Write an update down, unless it is there: a crash makes it come again. Raises `OSError`."""
        if await asyncio.to_thread(self._keep, writable(update), why):
            self.count += 1
            log.error("an update went to the dead letters", update=_id(update), why=why, file=FILE)

    def _keep(self, update: Any, why: str) -> bool:
        if self._kept is None:
            self._kept = {fingerprint(fact.get("update")) for fact in self._journal.read()}
        if (mark := fingerprint(update)) in self._kept:
            return False
        self._journal.append({"ts": now(), "why": why, "update": update})
        self._kept.add(mark)
        return True


def fingerprint(update: Any) -> bytes:
    """What tells one update from another: all of it, for `update_id` starts anew after a quiet week."""
    text = json.dumps(writable(update), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def writable(update: Any) -> Any:
    """The update, or no more than its id where it is nested too deeply to be written as JSON again."""
    try:
        json.dumps(update)
    except RecursionError:
        return {"update_id": _id(update)}
    return update


def _id(update: Any) -> Any:
    return update.get("update_id") if isinstance(update, dict) else None
