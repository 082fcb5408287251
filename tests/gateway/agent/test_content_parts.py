"""What came with messages, as content parts."""

import base64
from pathlib import Path
from typing import Any

import pytest

from gateway.agent import content_parts
from gateway.agent.attachments import Attachments
from gateway.agent.content_parts import ContentParts, has_parts, with_parts, without_parts
from session.events import User
from session.ids import SessionId

ME = SessionId("agent:main:telegram:user:5")
JPEG = b"\xff\xd8\xff\xe0" + b"j" * 20


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media" / "telegram"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def seeing(tmp_path: Path) -> ContentParts:
    return ContentParts(Attachments(tmp_path))


def message(number: int, ending: str = ".jpg") -> User:
    return User(content=f"[file, kept as media/telegram/5_{number}{ending}]", id=f"5_{number}")


def image(data: bytes, mime: str = "image/jpeg") -> dict[str, Any]:
    url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


async def test_images_pdfs_and_texts_are_parts(media: Path, seeing: ContentParts) -> None:
    (media / "5_1.jpg").write_bytes(JPEG)
    (media / "5_2.pdf").write_bytes(b"%PDF-1.7")
    (media / "5_3.py").write_text("print('ü')")
    (media / "5_4.zip").write_bytes(b"PK\0")
    files = [
        message(1),
        message(2, ".pdf"),
        message(3, ".py"),
        message(4, ".zip"),
        User(content="text", id="5_5"),
    ]
    assert await seeing.of(ME, [], files) == {
        "5_1": [image(JPEG)],
        "5_2": [
            {
                "type": "file",
                "file": {"filename": "5_2.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjc="},
            }
        ],
        "5_3": [{"type": "text", "text": "[5_3.py]\nprint('ü')"}],
    }


async def test_a_question_that_is_asked_again_comes_with_its_pictures(
    media: Path, seeing: ContentParts
) -> None:
    (media / "5_1.jpg").write_bytes(JPEG)
    again = User(content=message(1).content, id="5_9", of=("5_1",))
    assert await seeing.of(ME, [], [again]) == {"5_9": [image(JPEG)]}
    assert await seeing.of(ME, [], [User(content=message(1).content, id="5_9", of=("6_1",))]) == {}


async def test_a_long_text_is_cut(media: Path, seeing: ContentParts) -> None:
    (media / "5_1.txt").write_text("a" * 65_535 + "é")
    [part] = (await seeing.of(ME, [], [message(1, ".txt")]))["5_1"]
    assert part["text"] == "[5_1.txt]\n" + "a" * 65_535 + "\n[cut: 65537 bytes in all]"


async def test_the_last_four_images_are_shown(media: Path, seeing: ContentParts) -> None:
    for number in range(6):
        (media / f"5_{number}.jpg").write_bytes(JPEG)
    earlier, current = [message(number) for number in range(4)], [message(4), message(5)]
    assert list(await seeing.of(ME, earlier, current)) == ["5_2", "5_3", "5_4", "5_5"]


async def test_there_is_a_bound_on_all_of_them(
    media: Path, seeing: ContentParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_parts, "MAX_BYTES", 2 * len(JPEG))
    for number in range(3):
        (media / f"5_{number}.jpg").write_bytes(JPEG)
    assert list(await seeing.of(ME, [message(0), message(1)], [message(2)])) == ["5_1", "5_2"]


async def test_a_file_that_has_gone_is_left_out(media: Path, seeing: ContentParts) -> None:
    assert await seeing.of(ME, [message(1)], [message(2)]) == {}


def test_text_alone_stays_text() -> None:
    assert with_parts("hi", []) == {"role": "user", "content": "hi"}
    seen = with_parts("hi", [image(JPEG)])
    assert seen["content"] == [{"type": "text", "text": "hi"}, image(JPEG)]
    messages = [{"role": "system", "content": "Be kind."}, seen, {"role": "assistant", "content": None}]
    assert has_parts(messages)
    plain = without_parts(messages)
    assert plain == [messages[0], {"role": "user", "content": "hi"}, messages[2]]
    assert plain[0] is messages[0]
    assert not has_parts(plain)
