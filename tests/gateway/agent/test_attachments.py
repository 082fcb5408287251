"""The files of messages: found by id, told apart by their bytes, and nobody else's."""

import os
from pathlib import Path

import pytest

from gateway.agent.attachments import UNKNOWN, Attachment, Attachments, mime_type
from session.ids import SessionId

ME = SessionId("agent:main:telegram:user:5")
GROUP = SessionId("agent:main:telegram:chat:-100:topic:7")
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
KEPT = "[photo, 1×1, kept as media/telegram/5_7.jpg]"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media" / "telegram"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def attachments(tmp_path: Path, media: Path) -> Attachments:
    return Attachments(tmp_path)


def names(found: list[Attachment]) -> list[str]:
    return [attachment.name for attachment in found]


async def test_a_messages_files_are_found_by_its_id(media: Path, attachments: Attachments) -> None:
    (media / "5_7.jpg").write_bytes(PNG)
    (media / "5_7").write_bytes(b"plain")
    for other in ("5_77.jpg", "5_7.jpg.wanted", "5_7.jpg.part", "5_7.wanted", "15_7.jpg", "5_7.x y"):
        (media / other).write_bytes(PNG)
    plain, photo = await attachments.of(ME, "5_7")
    assert plain == Attachment("5_7", media / "5_7", "text/plain", 5)
    assert photo == Attachment("5_7.jpg", media / "5_7.jpg", "image/png", len(PNG))
    assert photo.read(4) == b"\x89PNG"
    assert await attachments.of(ME, "5_8") == []


async def test_a_channel_without_files_has_none(attachments: Attachments) -> None:
    assert await attachments.of(SessionId("agent:main:cli:local"), "m1") == []
    assert await attachments.of(SessionId("nonsense"), "5_7") == []


@pytest.mark.parametrize(
    "id", ["../telegram/5_7", "5_7/../5_7", "/etc/passwd", "5_7.jpg", "", ".", "..", "5_7\0", "5_7\n", "5_*"]
)
async def test_an_id_is_never_a_path(media: Path, attachments: Attachments, id: str) -> None:
    (media / "5_7.jpg").write_bytes(PNG)
    assert await attachments.of(ME, id) == []
    assert await attachments.kept(ME, id, KEPT) == []


async def test_files_of_another_chat_are_not_given(media: Path, attachments: Attachments) -> None:
    for name in ("6_7.jpg", "-100_7.jpg", "5_7.jpg", "55_7.jpg"):
        (media / name).write_bytes(PNG)
    assert await attachments.of(ME, "6_7") == []
    assert await attachments.of(ME, "-100_7") == []
    assert await attachments.of(ME, "55_7") == []
    assert await attachments.of(GROUP, "5_7") == []
    assert names(await attachments.of(GROUP, "-100_7")) == ["-100_7.jpg"]


async def test_a_link_and_a_pipe_are_no_files(media: Path, attachments: Attachments, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (media / "5_7.txt").symlink_to(tmp_path / "secret")
    os.mkfifo(media / "5_7.fifo")
    (media / "5_7.dir").mkdir()
    assert await attachments.of(ME, "5_7") == []


async def test_a_text_names_its_own_files_alone(media: Path, attachments: Attachments) -> None:
    for name in ("5_7.jpg", "5_8.jpg"):
        (media / name).write_bytes(PNG)
    assert names(await attachments.kept(ME, "5_7", f"{KEPT}\nlook")) == ["5_7.jpg"]
    assert await attachments.kept(ME, "5_7", "look") == []
    for typed in ("media/telegram/5_8.jpg", "media/telegram/../5_7.jpg", "media/webchat/5_7.jpg"):
        assert await attachments.kept(ME, "5_7", f"[photo, kept as {typed}]") == []


async def test_a_file_that_is_being_fetched_is_waited_for(media: Path, tmp_path: Path) -> None:
    waited: list[float] = []
    note = media / "5_7.jpg.wanted"
    note.write_text("{}")

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            (media / "5_7.jpg").write_bytes(PNG)
            note.unlink()

    attachments = Attachments(tmp_path, sleep)
    await attachments.fetched(ME, "5_7", "no file in it")
    assert not waited
    await attachments.fetched(ME, "5_7", KEPT)
    assert len(waited) == 3
    assert names(await attachments.kept(ME, "5_7", KEPT)) == ["5_7.jpg"]


async def test_the_wait_has_an_end(media: Path, tmp_path: Path) -> None:
    waited: list[float] = []
    (media / "5_7.jpg.wanted").write_text("{}")

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    await Attachments(tmp_path, sleep).fetched(ME, "5_7", KEPT)
    assert sum(waited) == pytest.approx(10.0, abs=0.2)


@pytest.mark.parametrize(
    ("head", "name", "mime"),
    [
        (b"\xff\xd8\xff\xe0", "a.png", "image/jpeg"),
        (PNG, "a.jpg", "image/png"),
        (b"GIF89a", "a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a", "image/webp"),
        (b"%PDF-1.7\n", "a.txt", "application/pdf"),
        (b"hello", "a.exe", "text/plain"),
        ("größe".encode(), "a", "text/plain"),
        (("a" * 4095 + "é").encode()[:4096], "a", "text/plain"),
        (b"a" * 4000 + b"\xff" + b"a" * 95, "a", UNKNOWN),
        (b"a\0b", "a.txt", UNKNOWN),
        (b"\xff\xfe", "a.png", UNKNOWN),
        (b"", "a.jpg", UNKNOWN),
        (b"OggS\0", "a.oga", "audio/ogg"),
        (b"\0\0\0\x18ftyp", "a.mp4", "video/mp4"),
        (b"\0", "a.html", UNKNOWN),
    ],
)
def test_what_a_file_is_is_told_by_its_bytes(head: bytes, name: str, mime: str) -> None:
    assert mime_type(head, name) == mime
