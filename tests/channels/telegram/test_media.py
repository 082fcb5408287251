"""The files that people send: what fails is tried again, and nothing ends the fetching of all the others."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from telegram import Bot
from telegram import File as TelegramFile
from telegram.error import BadRequest

from channels.telegram.chat import Chat
from channels.telegram.content import File
from channels.telegram.media import Media
from channels.telegram.reach import Reach

TIMEOUT = 15.0


class Files:
    """A bot that gives files: those of `missing` have no path the first time, others it does not know."""

    def __init__(self, *missing: str) -> None:
        self.missing = set(missing)

    async def get_file(self, id: str) -> Any:
        if id == "unknown":
            raise BadRequest("wrong file_id")
        if id in self.missing:
            self.missing.discard(id)
            return TelegramFile(id, "unique", 5, None)
        return Content()


class Content:
    file_size = 5

    async def download_as_bytearray(self, **_: Any) -> bytearray:
        return bytearray(b"words")


@asynccontextmanager
async def fetching(folder: Path, bot: Files) -> AsyncIterator[tuple[Media, list[tuple[Chat, str]]]]:
    said: list[tuple[Chat, str]] = []
    reach = Reach("1:x", sleep=lambda seconds: asyncio.sleep(0))
    media = Media(folder, cast("Bot", bot), 1 << 20, lambda chat, text: said.append((chat, text)), reach)
    running = asyncio.create_task(media.run())
    try:
        yield media, said
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait({running})


async def fetched(media: Media, *names: str) -> None:
    async with asyncio.timeout(TIMEOUT):
        while sorted(path.name for path in media.folder.iterdir()) != sorted(names):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_file_of_which_telegram_has_no_path_yet_is_tried_again(tmp_path: Path) -> None:
    async with fetching(tmp_path, Files("late")) as (media, said):
        await media.want(File("late", "7_1.txt", "document"), Chat(7))
        media.fetch()
        await fetched(media, "7_1.txt")
        assert not said


async def test_a_disk_that_removes_nothing_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, refused = Path.unlink, asyncio.Event()
    loop = asyncio.get_running_loop()

    def refuse(path: Path, missing_ok: bool = False) -> None:
        loop.call_soon_threadsafe(refused.set)
        raise OSError(errno.EROFS, "Read-only file system")

    async with fetching(tmp_path, Files()) as (media, said):
        monkeypatch.setattr(Path, "unlink", refuse)
        await media.want(File("unknown", "7_1.txt", "document"), Chat(7))
        media.fetch()
        await refused.wait()
        monkeypatch.setattr(Path, "unlink", unlink)
        await media.want(File("known", "8_1.txt", "document"), Chat(8))
        media.fetch()
        await fetched(media, "8_1.txt")
        assert said == [(Chat(7), "I could not fetch the document. Please send it again, or as text.")]


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"{}", b'{"id":1,"what":2,"chat":"x","topic":null}', b"\xff"]
)
async def test_a_note_that_is_none_ends_nothing(tmp_path: Path, content: bytes) -> None:
    async with fetching(tmp_path, Files()) as (media, said):
        await media.want(File("known", "8_1.txt", "document"), Chat(8))
        (media.folder / "7_1.txt.wanted").write_bytes(content)
        media.fetch()
        await fetched(media, "7_1.txt.wanted", "8_1.txt")
        assert not said
