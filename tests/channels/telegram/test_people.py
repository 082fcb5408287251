"""Who may talk: lists of ids and names, or pairing."""

from pathlib import Path

import pytest
from telegram import Message

from channels.telegram.journal import Journal
from channels.telegram.pairing import FILE, Pairing
from channels.telegram.people import People
from tests.channels.telegram.updates import GROUP, messages
from tests.fakes.telegram_server import TelegramServer


@pytest.fixture
def pairing(tmp_path: Path) -> Pairing:
    return Pairing(Journal(tmp_path / FILE))


async def said(
    server: TelegramServer, user: int, username: str | None = None, *, group: bool = False
) -> Message:
    into = server.group(GROUP) if group else None
    server.user(user, username=username).says("Hello", into=into)
    [message] = messages(server)
    return message


@pytest.mark.parametrize(
    ("allow", "may"),
    [
        (("7",), True),
        (("8", "7"), True),
        (("@Ann_Lee",), True),
        ((" @ann_lee ",), True),
        ((), False),
        (("8",), False),
        (("@ann",), False),
        (("ann_lee",), False),
        (("77",), False),
        (("-7",), False),
    ],
)
async def test_a_list_lets_in_whom_it_names(
    server: TelegramServer, pairing: Pairing, allow: tuple[str, ...], may: bool
) -> None:
    assert People(allow, pairing).may_talk(await said(server, 7, "ann_lee")) is may


@pytest.mark.parametrize("allow", [("@",), ("",), ("@ ",), ()])
async def test_nobody_is_let_in_by_an_empty_entry(
    server: TelegramServer, pairing: Pairing, allow: tuple[str, ...]
) -> None:
    assert not People(allow, pairing).may_talk(await said(server, 7, None))


async def test_a_group_on_the_list_lets_in_all_who_write_there(
    server: TelegramServer, pairing: Pairing
) -> None:
    people = People((str(GROUP),), pairing)
    assert people.may_talk(await said(server, 7, group=True))
    assert not people.may_talk(await said(server, 7))


async def test_somebody_on_the_list_may_talk_in_any_group(server: TelegramServer, pairing: Pairing) -> None:
    people = People(("7",), pairing)
    assert people.may_talk(await said(server, 7, group=True))
    assert not people.may_talk(await said(server, 8, group=True))


async def test_a_list_takes_the_place_of_pairing(server: TelegramServer, pairing: Pairing) -> None:
    code = pairing.knock("user:7", "Ann")
    assert code is not None
    pairing.approve(code.code)
    assert People(None, pairing).may_talk(await said(server, 7))
    assert not People((), pairing).may_talk(await said(server, 7))


async def test_an_approval_counts_for_its_peer(server: TelegramServer, pairing: Pairing) -> None:
    people = People(None, pairing)
    assert not people.may_talk(await said(server, 7))
    for peer in ("user:7", f"chat:{GROUP}"):
        code = pairing.knock(peer, "")
        assert code is not None
        pairing.approve(code.code)
    assert people.may_talk(await said(server, 7))
    assert people.may_talk(await said(server, 8, group=True))
    assert not people.may_talk(await said(server, 8))


async def test_a_group_stays_known_under_its_new_id(server: TelegramServer, pairing: Pairing) -> None:
    people = People(("-1",), pairing, {GROUP: -1}.get)  # type: ignore[arg-type]  # always of a known chat here
    assert people.may_talk(await said(server, 8, group=True))


async def test_who_writes_in_the_name_of_a_chat_is_nobody_on_the_list(
    server: TelegramServer, pairing: Pairing
) -> None:
    """The user of such a message is the same for all anonymous administrators of all groups."""
    group = server.group(GROUP)
    stand_in = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
    server.receive(group.chat, stand_in, "Hello", extra={"sender_chat": group.chat.api()})
    [message] = messages(server)
    assert not People(("1087968824", "@GroupAnonymousBot"), pairing).may_talk(message)
    assert People((str(GROUP),), pairing).may_talk(message)
