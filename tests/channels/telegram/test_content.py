"""What people send, as the agent reads it."""

import pytest

from channels.telegram import content
from channels.telegram.content import Content
from channels.telegram.settings import TOP_SIZE
from tests.channels.telegram.updates import GROUP, messages
from tests.fakes.telegram_server import Person, TelegramServer


@pytest.fixture(autouse=True)
def durations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", "true")


@pytest.fixture
def ann(server: TelegramServer) -> Person:
    return server.user(7, "Ann")


def read(server: TelegramServer, limit: int = TOP_SIZE) -> Content:
    found = content.read(messages(server)[-1], limit)
    assert found is not None
    return found


async def test_text_is_as_it_was_written(server: TelegramServer, ann: Person) -> None:
    ann.says("  Hello\n\n/new \ud83d you  ")
    assert read(server) == Content("  Hello\n\n/new \ud83d you  ")


async def test_hidden_links_are_shown(server: TelegramServer, ann: Person) -> None:
    ann.says(
        "😀 read this", entities=[{"type": "text_link", "offset": 3, "length": 4, "url": "https://a.example"}]
    )
    assert read(server).text == "😀 read this\n[link read: https://a.example]"


@pytest.mark.parametrize(("length", "long"), [(3999, False), (4000, True), (4096, True)])
async def test_a_message_that_may_be_part_of_a_paste(
    server: TelegramServer, ann: Person, length: int, long: bool
) -> None:
    ann.says("x" * length)
    assert read(server).long is long
    ann.says("😀" * (length // 2) + "x" * (length % 2))
    assert read(server).long is long


async def test_what_is_replied_to_goes_along(server: TelegramServer, ann: Person) -> None:
    bea = server.user(8, "Bea")
    group = server.group(GROUP)
    first = bea.says("one\ntwo", into=group)
    ann.says("yes", into=group, reply_to=first)
    assert read(server).text == "> Bea: one\n> two\n\nyes"
    ann.says("no", into=group, reply_to=first, quote="two")
    assert read(server).text == "> Bea: two\n\nno"


async def test_a_long_message_that_is_replied_to_is_shortened_but_a_chosen_quote_is_not(
    server: TelegramServer, ann: Person
) -> None:
    first = ann.says("x" * 600)
    ann.says("yes", reply_to=first)
    assert read(server).text == f"> Ann: {'x' * 500}…\n\nyes"
    ann.says("yes", reply_to=first, quote="x" * 600)
    assert read(server).text == f"> Ann: {'x' * 600}\n\nyes"


async def test_a_reply_to_a_picture_names_it(server: TelegramServer, ann: Person) -> None:
    ann.says("nice", reply_to=ann.sends_photo(b"1", "my cat"))
    assert read(server).text == "> Ann: [photo]\n> my cat\n\nnice"


async def test_a_message_in_a_topic_is_no_reply_to_its_beginning(server: TelegramServer, ann: Person) -> None:
    forum = server.group(-1_001_000_000_001, forum=True)
    ann.says("Hello", into=forum, thread=forum.opens_topic("News"))
    assert read(server).text == "Hello"


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        (None, "Somebody"),
        ({"type": "user", "date": 1, "sender_user": {"id": 9, "is_bot": False, "first_name": "Cid"}}, "Cid"),
        ({"type": "chat", "date": 1, "sender_chat": {"id": -5, "type": "group", "title": "Club"}}, "Club"),
        (
            {
                "type": "channel",
                "date": 1,
                "message_id": 3,
                "chat": {"id": -6, "type": "channel", "title": "News [1]\n]"},
            },
            "News (1) )",
        ),
    ],
)
async def test_forwards_say_where_they_are_from(
    server: TelegramServer, ann: Person, origin: dict[str, object] | None, name: str
) -> None:
    ann.forwards("/new", origin=origin)
    assert read(server).text == f"[forwarded from {name}]\n/new"


async def test_places_and_people_are_text(server: TelegramServer, ann: Person) -> None:
    ann.sends_location(52.5, 13.4)
    assert read(server).text == "[location: 52.5, 13.4]"
    ann.sends_contact("+49301", "Bea")
    assert read(server).text == "[contact: Bea, +49301]"
    place = {"location": {"latitude": 1.5, "longitude": 2}, "title": "Café", "address": "Street 1"}
    server.receive(ann.chat, ann.api, extra={"venue": place, "location": place["location"]})
    assert read(server).text == "[location: Café, Street 1 (1.5, 2)]"


async def test_files_are_described_and_named(server: TelegramServer, ann: Person) -> None:
    ann.sends_photo(b"p" * 2048, "my cat")
    photo = read(server)
    assert photo.text == "[photo, 1280×1280, 2 KiB, kept as media/telegram/7_1.jpg]\nmy cat"
    assert [(file.name, file.what) for file in photo.files] == [("7_1.jpg", "photo")]
    ann.sends_document(b"words", "My Notes.TXT")
    assert read(server).text == '[document "My Notes.TXT", 5 B, kept as media/telegram/7_2.txt]'
    ann.sends_voice(b"sound", 3)
    assert read(server).text == "[voice message, 3 s, 5 B, kept as media/telegram/7_3.oga]"
    ann.sends_video_note(b"round", 4)
    assert read(server).text == "[video note, 4 s, 5 B, kept as media/telegram/7_4.mp4]"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "a/b.txt",
        'x".jpg\n[photo',
        "no ending",
        ".",
        "a.b/c",
        "x.wanted",
        "y.txt.WANTED",
        "z.part",
    ],
)
async def test_a_files_own_name_is_never_a_path(server: TelegramServer, ann: Person, name: str) -> None:
    ann.sends_document(b"1", "x.bin")
    message = messages(server)[-1]
    assert message.document is not None
    with message.document._unfrozen():
        message.document.file_name = name
    found = content.read(message)
    assert found is not None
    assert found.files[0].name in {"7_1", "7_1.txt"}
    assert found.text.count("\n") == 0


async def test_a_file_that_is_too_large_is_named_and_not_fetched(server: TelegramServer, ann: Person) -> None:
    ann.sends_document(b"", "film.mkv", size=21 << 20)
    assert read(server) == Content('[document "film.mkv", 21.0 MiB, too large to be fetched]')
    ann.sends_document(b"", "film.mkv", size=2 << 20)
    assert not read(server, limit=1 << 20).files


async def test_what_cannot_be_read_is_named(server: TelegramServer, ann: Person) -> None:
    ann.sends_sticker(b"1")
    assert read(server) == Content("", unreadable="stickers")
    server.receive(ann.chat, ann.api, extra={"dice": {"emoji": "🎲", "value": 3}})
    assert read(server).unreadable == "dice"


async def test_telegrams_own_messages_say_nothing(server: TelegramServer, ann: Person) -> None:
    group = server.group(GROUP)
    ann.joins(group)
    server.receive(group.chat, ann.api, extra={"new_chat_title": "Better"})
    server.receive(group.chat, ann.api, extra={"something_new": {"a": 1}})
    assert [content.read(message) for message in messages(server)] == [None] * 3
