"""A reply whose chat, topic, bubble or connection is not what it was."""

from collections.abc import Callable

import pytest
from telegram import Bot

from channels.telegram import said
from channels.telegram.delivery import Deliveries
from channels.telegram.formatted import Formatted
from session.events import System
from tests.channels.telegram.stage import ANSWER, SHOWN, Wait, begun, delivered, of_chat, private
from tests.fakes.telegram_server import (
    Refuse,
    TelegramServer,
)

GROUP = -100
FORUM = -1_001_000_000_001


async def test_a_group_that_moves_meanwhile_gets_its_reply_at_its_new_address(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait
) -> None:
    ann = server.user(7)
    group, session = server.group(GROUP, members=(ann,)), of_chat("-100")
    first = make()
    first.attend(session)
    session.begins("t1", "-100_1")
    session.says("t1", "So far so ")
    await wait(lambda: session.recorded("sent"))
    new = group.migrates()
    session.ends("t1", "So far so good.", "-100_1")
    await wait(lambda: delivered(session))
    assert new.chat.texts() == ["So far so good."]
    assert [event.chat for event in session.recorded("address")] == [str(new.id)]
    await first.close(0)
    again = session.after_restart()
    make().attend(again)
    again.ends("t2", "And here.", f"{new.id}_2")
    await wait(lambda: delivered(again))
    assert new.chat.texts() == ["So far so good.", "And here."]


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_ids_of_a_moved_groups_bubbles_mean_nothing_at_its_new_address(
    server: TelegramServer, bot: Bot, make: Callable[..., Deliveries], wait: Wait, restarted: bool
) -> None:
    group, session = server.group(GROUP, members=(server.user(7),)), of_chat("-100")
    await bot.send_message(GROUP, "before")
    first = make()
    first.attend(session)
    session.begins("t1", "-100_1")
    session.says("t1", "So far so ")
    await wait(lambda: session.recorded("sent"))
    new = group.migrates()
    for _ in range(5):
        await bot.send_message(new.id, "of somebody else")
    if restarted:
        await first.close(0)
        session = session.after_restart()
        session.stores(System(name="address", chat=str(new.id)))
        make().attend(session)
    session.ends("t1", "So far so good.", "-100_1")
    await wait(lambda: delivered(session))
    bubble = session.recorded("sent")[0].message_id
    assert bubble in [message.id for message in new.chat.bot_messages()]  # there it is another's
    assert new.chat.texts() == [*["of somebody else"] * 5, "So far so good."]


@pytest.mark.parametrize("how", ["deletes_topic", "closes_topic"])
async def test_without_its_topic_a_reply_comes_into_the_chat(
    server: TelegramServer, deliveries: Deliveries, wait: Wait, how: str
) -> None:
    ann, group = server.user(7), server.group(FORUM, forum=True)
    topic = group.opens_topic("Plans")
    question = ann.says("What?", into=group, thread=topic)
    session = of_chat(f"{FORUM}:topic:{topic}")
    getattr(group, how)(topic)
    deliveries.attend(session)
    session.ends("t1", ANSWER, f"{FORUM}_{question.id}")
    await wait(lambda: delivered(session))
    assert group.chat.texts() == [SHOWN]


async def test_a_bubble_that_somebody_deleted_is_sent_anew(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = begun(server, deliveries, "It is five past ")
    await wait(lambda: session.recorded("sent"))
    ann.deletes(ann.chat.bot_messages()[0])
    session.ends("t1", ANSWER)
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == [SHOWN]
    assert [event.part for event in session.recorded("sent")] == [0, 0]


async def test_who_deletes_every_bubble_gets_no_endless_row_of_them(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    server.user(7)
    session = private()
    server.fail("editMessageText", Refuse(400, "Bad Request: message to edit not found"), times=None)
    deliveries.attend(session)
    session.ends("t1", ANSWER)
    await wait(lambda: session.recorded("delivery_failed"))
    assert len(server.calls_of("sendMessage")) == 4


async def test_a_reply_that_breaks_us_is_a_failed_delivery(
    server: TelegramServer, deliveries: Deliveries, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(text: str) -> Formatted:
        raise ValueError(f"cannot render {text}")

    ann, session = server.user(7), private()
    deliveries.attend(session)
    with monkeypatch.context() as patch:
        patch.setattr(said, "render", broken)
        session.ends("t1", ANSWER)
        await wait(lambda: session.recorded("delivery_failed"))
    session.ends("t2", ANSWER)
    await wait(lambda: len(session.undelivered()) == 1)
    assert ann.chat.texts() == [SHOWN]
