"""The files that people send: fetched after their message is stored, in their own time."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog
from telegram import Bot
from telegram.error import BadRequest, TelegramError

from channels.telegram.chat import Chat
from channels.telegram.content import MEDIA, File
from channels.telegram.reach import Reach

log = structlog.get_logger(__name__)

_WANTED = ".wanted"
_TRIES = 6
_PAUSE = 5.0  # seconds after the first round in which something failed; doubled each time
_LONGEST_PAUSE = 120.0
_PATIENCE = 60.0  # seconds for one file


class Wanted(NamedTuple):
    """A file that is to be fetched, as it is noted on disk beside the place where it will be."""

    id: str
    name: str
    what: str
    chat: Chat


class Media:
    """The folder `<data_dir>/media/telegram`. What is still to be fetched is in it as `<name>.wanted`."""

    def __init__(
        self, data_dir: Path, bot: Bot, limit: int, say: Callable[[Chat, str], None], reach: Reach
    ) -> None:
        self.folder = data_dir / MEDIA
        self._bot = bot
        self._limit = limit
        self._say = say
        self._reach = reach
        self._noted = asyncio.Event()
        self._tries: dict[str, int] = {}

    async def want(self, file: File, chat: Chat) -> None:
        """Note that a file is to be fetched, before its message counts as taken. Raises `OSError`."""
        await asyncio.to_thread(self._note, Wanted(*file, chat))

    def fetch(self) -> None:
        """Something was noted: get to work."""
        self._noted.set()

    def _note(self, wanted: Wanted) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (self.folder / wanted.name).exists():
            return
        note = {"id": wanted.id, "what": wanted.what, "chat": wanted.chat.id, "topic": wanted.chat.topic}
        _write(self.folder / f"{wanted.name}{_WANTED}", json.dumps(note).encode())

    # -- fetching --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Fetch what is noted, one file after another, until cancelled."""
        pause = _PAUSE
        while True:
            self._noted.clear()
            left = False
            for wanted in await asyncio.to_thread(self._all):
                left = not await self._done_with(wanted) or left
            if left:
                await self._reach.pause(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                pause = _PAUSE
                await self._noted.wait()

    def _all(self) -> list[Wanted]:
        return [found for note in sorted(self.folder.glob(f"*{_WANTED}")) if (found := _read(note))]

    async def _done_with(self, wanted: Wanted) -> bool:
        """Whether there is no more to do for this file, and nothing that is noted."""
        try:
            return await self._fetched(wanted)
        except OSError as error:  # the note could not be removed
            log.warning("a note about a file stays", file=wanted.name, why=str(error))
            return False

    async def _fetched(self, wanted: Wanted) -> bool:
        """Whether the file is here, or will never be; raises `OSError`."""
        why: str | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._fetch(wanted)
        except _TooLarge:
            why = "it is too large"
        except BadRequest as error:
            why = self._reach.clean(error)
        # A timeout is an OSError, too; a RuntimeError: Telegram does not say where the file is.
        except (TelegramError, OSError, RuntimeError) as error:
            tries = self._tries[wanted.name] = self._tries.get(wanted.name, 0) + 1
            why = self._reach.clean(error)
            log.warning("a file was not fetched", file=wanted.name, why=why, tries=tries)
            if tries < _TRIES:
                return False
        self._tries.pop(wanted.name, None)
        await asyncio.to_thread((self.folder / f"{wanted.name}{_WANTED}").unlink, missing_ok=True)
        if why is not None:
            log.error("a file was given up", file=wanted.name, why=why)
            self._say(wanted.chat, f"I could not fetch the {wanted.what}. Please send it again, or as text.")
        return True

    async def _fetch(self, wanted: Wanted) -> None:
        file = await self._bot.get_file(wanted.id)
        if (file.file_size or 0) > self._limit:
            raise _TooLarge
        data = await file.download_as_bytearray(read_timeout=_PATIENCE)
        if len(data) > self._limit:
            raise _TooLarge
        await asyncio.to_thread(_write, self.folder / wanted.name, bytes(data))


class _TooLarge(Exception):
    pass


def _write(path: Path, data: bytes) -> None:
    """Write a whole file, synced, or nothing."""
    beside = path.with_name(f"{path.name}.part")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())
    os.replace(beside, path)


def _read(note: Path) -> Wanted | None:
    try:
        fields = json.loads(note.read_bytes())
        chat = Chat(int(fields["chat"]), fields["topic"])
        return Wanted(str(fields["id"]), note.name.removesuffix(_WANTED), str(fields["what"]), chat)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        log.warning("a note about a file cannot be read", note=str(note))
        return None
