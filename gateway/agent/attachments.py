"""The files of messages, where channels keep them: `<data_dir>/media/<provider>/<message id>.<ending>`."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import re
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from session import ids
from session.errors import BadSessionId
from session.ids import Provider, SessionId

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")  # an id is never a path
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,8})?\Z")
_KEPT = re.compile(r"kept as media/([a-z0-9_]+)/([A-Za-z0-9_-]{1,128}(?:\.[A-Za-z0-9]{1,8})?)\]")
_WANTED = ".wanted"  # beside a file that is still being fetched
_PART = ".part"  # a file that is being written
_PATIENCE = 10.0  # seconds that a file which is being fetched is waited for
_LOOK_AGAIN = 0.1
_HEAD = 4096  # bytes that tell what a file is

UNKNOWN = "application/octet-stream"


class Attachment(NamedTuple):
    """One file of a message; `mime` is what its first bytes say, whatever its name is. `size` in bytes."""

    name: str
    path: Path
    mime: str
    size: int

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes of it; raises `OSError`. Reads the disk: call it in a thread."""
        with os.fdopen(_opened(self.path), "rb") as file:
            return file.read(limit)


class Attachments:
    """Finds attachments. All reading is done in threads."""

    def __init__(self, data_dir: Path, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._media = data_dir / "media"
        self._sleep = sleep

    async def of(self, session: SessionId, message_id: str) -> list[Attachment]:
        """The files of one message of a session; none where it has none, or they are not here (any more).

        Never those of another person's chat; of groups, the caller knows that the message is the session's.
        """
        if (provider := _provider(session, message_id)) is None:
            return []
        return await asyncio.to_thread(_all, self._media / provider, message_id)

    async def kept(self, session: SessionId, message_id: str, text: str) -> list[Attachment]:
        """As `of`, but for a message whose text is at hand: it costs nothing where that names no file."""
        if (paths := self._named(session, message_id, text)) is None:
            return []
        return await asyncio.to_thread(lambda: [found for path in paths if (found := _look(path))])

    async def fetched(self, session: SessionId, message_id: str, text: str) -> None:
        """Wait until the files that a message names are here, at most ten seconds."""
        paths = self._named(session, message_id, text)
        left = _PATIENCE
        while paths and left > 0 and await asyncio.to_thread(_any_wanted, paths):
            await self._sleep(_LOOK_AGAIN)
            left -= _LOOK_AGAIN

    def _named(self, session: SessionId, message_id: str, text: str) -> list[Path] | None:
        """The files of its own that a text names; what else a person may have typed there is not followed."""
        if "kept as media/" not in text or (provider := _provider(session, message_id)) is None:
            return None
        return [
            self._media / provider / name
            for place, name in _KEPT.findall(text)
            if place == provider and _is_of(name, message_id)
        ] or None


def _provider(session: SessionId, message_id: str) -> Provider | None:
    """Where the files of this message may be; None where it cannot be a message of this session."""
    try:
        _, peer = ids.parse(session)
    except BadSessionId:
        return None
    if not _ID.match(message_id):
        return None
    kind, _, number = peer.peer_id.partition(":")
    if kind == "user" and not message_id.startswith(f"{number}_"):
        return None  # of another chat: a private one keeps its number for ever, a group may move
    if kind == "chat" and not message_id.startswith("-"):
        return None
    return peer.provider


def _is_of(name: str, message_id: str) -> bool:
    if not name.startswith(message_id) or name.endswith((_WANTED, _PART)):
        return False
    return _ENDING.match(name, len(message_id)) is not None


def _all(folder: Path, message_id: str) -> list[Attachment]:
    try:
        names = sorted(name for name in os.listdir(folder) if _is_of(name, message_id))
    except OSError:
        return []
    return [found for name in names if (found := _look(folder / name))]


def _any_wanted(paths: list[Path]) -> bool:
    return any(path.with_name(path.name + _WANTED).exists() for path in paths)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _look(path: Path) -> Attachment | None:
    try:
        with os.fdopen(_opened(path), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            return Attachment(path.name, path, mime_type(file.read(_HEAD), path.name), status.st_size)
    except OSError:
        return None


def mime_type(head: bytes, name: str) -> str:
    """What a file is, by its first bytes; its name is asked only about what no model is shown as it is."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith(b"%PDF-"):
        return "application/pdf"
    if head and _is_text(head):
        return "text/plain"
    guess, _ = mimetypes.guess_type(name)
    return guess if guess and guess.startswith(("audio/", "video/")) else UNKNOWN


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        # A character may be cut at the end of what was read.
        head[: _HEAD - 4].decode() if len(head) == _HEAD else head.decode()
    except UnicodeDecodeError as error:
        return len(head) == _HEAD and error.start >= _HEAD - 8
    return True
