"""What one update means."""

from pathlib import Path
from typing import Any

import pytest

from channels.telegram.adapter import (
    AFTER_LONG,
    ALBUM,
    QUIET,
    Adapter,
    Edited,
    Greeted,
    Meaning,
    Moved,
    Overheard,
    Said,
    Stranger,
    Unreadable,
)
from channels.telegram.chat import Chat
from tests.channels.telegram.updates import GROUP, ME, adapter, drained
from tests.fakes.telegram_server import Person, TelegramServer


@pytest.fixture
def ann(server: TelegramServer) -> Person:
    return server.user(7, "Ann", "ann")


@pytest.fixture
def ours(tmp_path: Path) -> Adapter:
    return adapter(tmp_path)


def means(server: TelegramServer, ours: Adapter) -> list[Meaning | None]:
    return [ours.read(update) for update in drained(server)]


def texts(found: list[Meaning | None]) -> list[str | None]:
    return [meaning.message.text if isinstance(meaning, Said) else None for meaning in found]


# -- private chats ---------------------------------------------------------------------------------


async def test_a_private_message_is_for_us(server: TelegramServer, ours: Adapter, ann: Person) -> None:
    ann.says("Hello")
    [said] = means(server, ours)
    assert isinstance(said, Said)
    assert said.message.peer == ("telegram", "user:7")
    assert (said.message.id, said.message.text, said.message.hold) == ("7_1", "Hello", QUIET)
    assert said.message.insistent
    assert said.chat == Chat(7)


async def test_what_belongs_together_is_waited_for(
    server: TelegramServer, ours: Adapter, ann: Person
) -> None:
    ann.pastes("x" * 5000)
    ann.sends_album([b"1", b"2"])
    ann.says("/new")
    found = means(server, ours)
    holds = [meaning.message.hold for meaning in found if isinstance(meaning, Said)]
    assert holds == [AFTER_LONG, QUIET, ALBUM, ALBUM, 0.0]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/new", "/new"),
        ("/new@lunar_bot", "/new"),
        ("/NEW@Lunar_Bot now", "/new now"),
        ("/help\nme", "/help\nme"),
        ("/other", "/other"),
        ("/other@lunar_bot x", "/other x"),
        ("/new@another_bot", "/new@another_bot"),
        ("/new/path", "/new/path"),
        ("//new", "//new"),
    ],
)
async def test_commands_lose_our_name(
    server: TelegramServer, ours: Adapter, ann: Person, text: str, command: str
) -> None:
    ann.says(text)
    assert texts(means(server, ours)) == [command]


async def test_a_command_stays_one_in_a_reply_and_is_none_in_a_forward(
    server: TelegramServer, ours: Adapter, ann: Person
) -> None:
    ann.says("/new", reply_to=ann.says("before"))
    ann.forwards("/new")
    assert texts(means(server, ours))[1:] == ["/new", "[forwarded from Somebody]\n/new"]


async def test_start_is_greeted(server: TelegramServer, ours: Adapter, ann: Person) -> None:
    ann.says("/start")
    ann.says("/start from_a_link")
    assert means(server, ours) == [Greeted(Chat(7))] * 2


async def test_what_cannot_be_read_is_said_so(server: TelegramServer, ours: Adapter, ann: Person) -> None:
    ann.sends_sticker(b"1")
    assert means(server, ours) == [Unreadable(Chat(7), 1, "stickers")]


async def test_an_edit_is_no_message(server: TelegramServer, ours: Adapter, ann: Person) -> None:
    ann.edits(ann.says("Helo"), "Hello")
    assert means(server, ours)[1] == Edited(("telegram", "user:7"), "7_1", "Hello")  # type: ignore[arg-type]  # equal


# -- groups ----------------------------------------------------------------------------------------


async def test_a_group_is_answered_where_we_are_addressed(
    server: TelegramServer, ours: Adapter, ann: Person
) -> None:
    group, bea = server.group(GROUP), server.user(8, "Bea")
    mine = group.chat.add(server.bot_user, "I am here", by_bot=True)
    ann.says("among us", into=group)
    ann.says("@lunar_bot you there?", into=group)
    ann.says("@LUNAR_BOT?", into=group)
    ann.says("@lunar_bot2 no", into=group)
    ann.says("yes", into=group, reply_to=mine)
    ann.says("no", into=group, reply_to=bea.says("Hm", into=group))
    ann.says("/new", into=group)
    ann.says("/new@lunar_bot", into=group)
    ann.says("/new@another_bot", into=group)
    ann.says("/roll", into=group)
    ann.says("/roll@lunar_bot", into=group)
    assert texts(means(server, ours)) == [
        None,
        "Ann: @lunar_bot you there?",
        "Ann: @LUNAR_BOT?",
        None,
        "Ann:\n> Lunar: I am here\n\nyes",
        None,
        None,
        "/new",
        "/new",
        None,
        None,
        "/roll",
    ]


async def test_a_name_without_an_at_sign_and_a_caption_address_us_too(
    server: TelegramServer, ours: Adapter, ann: Person
) -> None:
    group = server.group(GROUP)
    mention = {"type": "text_mention", "offset": 2, "length": 5, "user": server.bot_user}
    ann.says("😀Lunar?", into=group, entities=[mention])
    ann.sends_photo(b"1", "what is it, @lunar_bot?", into=group)
    ann.sends_photo(b"1", "look", into=group)
    found = means(server, ours)
    assert [isinstance(meaning, Said) for meaning in found] == [True, True, False]


async def test_every_part_of_an_album_or_paste_is_for_us_when_its_first_is(
    server: TelegramServer, ours: Adapter, ann: Person
) -> None:
    group, bea = server.group(GROUP), server.user(8, "Bea")
    ann.sends_album([b"1", b"2"], "for @lunar_bot", into=group)
    ann.sends_album([b"1", b"2"], "for the others", into=group)
    ann.pastes("@lunar_bot " + "x" * 9000, into=group)
    ann.says("among us", into=group)
    bea.says("among us", into=group)
    found = [isinstance(meaning, Said) for meaning in means(server, ours)]
    assert found == [True, True, False, False, True, True, True, False, False]


async def test_a_part_of_a_paste_that_is_read_again_is_for_us_again(
    server: TelegramServer, ours: Adapter, ann: Person
) -> None:
    group = server.group(GROUP)
    ann.pastes("@lunar_bot " + "x" * 5000, into=group)
    first, last = drained(server)
    assert [isinstance(ours.read(update), Said) for update in (first, last, last, last)] == [True] * 4
    ann.says("among us", into=group)
    assert [isinstance(meaning, Said) for meaning in means(server, ours)] == [False]


async def test_a_paste_ends_with_its_time(
    server: TelegramServer, ours: Adapter, ann: Person, time: Any
) -> None:
    group = server.group(GROUP)
    ann.says("@lunar_bot " + "x" * 4000, into=group)
    time.now += 10
    ann.says("among us", into=group)
    assert [isinstance(meaning, Said) for meaning in means(server, ours)] == [True, False]


async def test_all_of_a_group_is_for_us_where_that_is_asked_for(
    server: TelegramServer, tmp_path: Path, ann: Person
) -> None:
    group = server.group(GROUP)
    ann.says("among us", into=group)
    ann.says("/new@another_bot", into=group)
    ann.sends_sticker(b"1", into=group)
    assert texts(means(server, adapter(tmp_path, groups="all"))) == ["Ann: among us", None, None]


async def test_what_is_not_for_us_is_overheard_where_that_is_asked_for(
    server: TelegramServer, tmp_path: Path, ann: Person
) -> None:
    group = server.group(GROUP)
    ann.says("among us", into=group)
    ann.sends_sticker(b"1", into=group)
    server.user(9, "Cid").says("a stranger", into=group)
    peer = ("telegram", "chat:-100")
    assert means(server, adapter(tmp_path, context=True)) == [
        Overheard(peer, "-100_1", "Ann", "among us"),  # type: ignore[arg-type]  # equal
        None,
        None,
    ]


async def test_topics_have_sessions_of_their_own(server: TelegramServer, tmp_path: Path, ann: Person) -> None:
    ours = adapter(tmp_path, groups="all")
    forum = server.group(-1_001_000_000_001, forum=True)
    topic = forum.opens_topic("News")
    ann.says("general", into=forum)
    ann.says("news", into=forum, thread=topic)
    found = [meaning for meaning in means(server, ours) if isinstance(meaning, Said)]
    assert [meaning.message.peer.peer_id for meaning in found] == [
        "chat:-1001000000001",
        f"chat:-1001000000001:topic:{topic}",
    ]
    assert [meaning.chat for meaning in found] == [
        Chat(-1_001_000_000_001),
        Chat(-1_001_000_000_001, topic),
    ]


async def test_a_thread_of_replies_is_no_topic(server: TelegramServer, tmp_path: Path, ann: Person) -> None:
    group = server.group(-1_001_000_000_002)
    ann.says("two", into=group, reply_to=ann.says("one", into=group))
    found = means(server, adapter(tmp_path, groups="all"))
    assert {said.message.peer.peer_id for said in found if isinstance(said, Said)} == {"chat:-1001000000002"}


# -- whom we do not hear ---------------------------------------------------------------------------


async def test_a_stranger_is_one_only_when_it_talks_to_us(server: TelegramServer, ours: Adapter) -> None:
    cid, group = server.user(9, "Cid", "cid"), server.group(GROUP, "Club")
    cid.edits(cid.says("Hello"), "Hello!")
    cid.joins(group)
    cid.says("among us", into=group)
    cid.says("@lunar_bot hi", into=group)
    assert [meaning for meaning in means(server, ours) if meaning] == [
        Stranger(Chat(9), 1, "user:9", "Cid (@cid)"),
        Stranger(Chat(-100), 4, "chat:-100", "Club, asked for by Cid (@cid)"),
    ]


async def test_channels_and_machines_are_ignored(server: TelegramServer, ours: Adapter, ann: Person) -> None:
    channel = server.channel(-1_002_000_000_001)
    channel.edits_post(channel.posts("@lunar_bot news"), "newer")
    group = server.group(GROUP)
    other = {"id": 55, "is_bot": True, "first_name": "Other", "username": "other_bot"}
    server.receive(
        group.chat, other, "@lunar_bot hi", entities=[{"type": "mention", "offset": 0, "length": 10}]
    )
    server.receive(ann.chat, ann.api, "copied", extra={"is_automatic_forward": True})
    assert means(server, ours) == [None] * 4


async def test_other_kinds_of_updates_mean_nothing(
    server: TelegramServer, ours: Adapter, ann: Person
) -> None:
    ann.blocks_bot()
    server.push_raw({"something_new": {"a": [1]}})
    server.push_raw({})
    assert means(server, ours) == [None] * 3


# -- groups that move ------------------------------------------------------------------------------


async def test_a_group_stays_the_same_peer_under_its_new_id(
    server: TelegramServer, ours: Adapter, ann: Person
) -> None:
    group = server.group(GROUP)
    ann.says("@lunar_bot before", into=group)
    new = group.migrates()
    ann.says("@lunar_bot after", into=new)
    updates = drained(server)
    for update in updates:
        ours.lane(update)
    assert {ours.lane(update) for update in updates} == {GROUP}
    before, to, from_, after = [ours.read(update) for update in updates]
    peer = ("telegram", "chat:-100")
    assert to == from_ == Moved(peer, GROUP, new.id, False)  # type: ignore[arg-type]  # equal
    assert isinstance(before, Said)
    assert isinstance(after, Said)
    assert before.message.peer == after.message.peer == peer
    assert (before.message.id, after.message.id) == ("-100_1", f"{new.id}_2")
    assert after.chat == Chat(new.id)


# -- what is not of the Bot API's form -------------------------------------------------------------

_CHAT = {"id": 7, "type": "private", "first_name": "Ann"}
_FROM = {"id": 7, "is_bot": False, "first_name": "Ann"}
POISON: list[Any] = [
    "text",
    None,
    [],
    {"message": 5},
    {"message": {"message_id": "x", "chat": None}},
    {"message": {"message_id": "x", "date": 1, "chat": _CHAT, "from": _FROM, "text": "hi"}},
    {"message": {"message_id": 1, "date": 1, "chat": _CHAT, "from": _FROM, "text": {"a": 1}}},
    {"message": {"message_id": 1, "date": "x", "chat": _CHAT, "from": _FROM, "text": "hi"}},
    {"message": {"message_id": 1, "date": 1, "chat": {"id": "7", "type": "private"}, "text": "hi"}},
    {
        "message": {
            "message_id": 1,
            "date": 1,
            "chat": _CHAT,
            "from": {"id": "7", "is_bot": 0, "first_name": 1},
        }
    },
    {"message": {"message_id": 1, "date": 1, "chat": _CHAT, "from": _FROM, "photo": [{}]}},
    {"message": {"message_id": 1, "date": 1e400, "chat": _CHAT, "from": _FROM, "text": "hi"}},
]


@pytest.mark.parametrize("update", POISON, ids=range(len(POISON)))
def test_poison_is_an_error_and_has_a_lane(ours: Adapter, update: Any) -> None:
    ours.lane(update)
    with pytest.raises(Exception):  # noqa: B017 # whatever it is, the update becomes a dead letter
        ours.read(update)


def test_lone_surrogates_are_no_poison(ours: Adapter) -> None:
    entity = {"type": "mention", "offset": 1, "length": 10}
    message = {
        "message_id": 1,
        "date": 1,
        "chat": {"id": GROUP, "type": "group", "title": "\udc00"},
        "from": _FROM,
        "text": "\ud800@lunar_bot",
        "entities": [entity],
    }
    assert texts([ours.read({"update_id": 1, "message": message})]) == ["Ann: \ud800@lunar_bot"]
    assert ME.username == "lunar_bot"
