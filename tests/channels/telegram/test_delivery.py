"""The replies of several sessions, their failures, notices, and the stop."""

import asyncio
from collections.abc import Callable

import pytest

from channels.base import Done, Running
from channels.telegram.chat import Chat
from channels.telegram.chunks import split
from channels.telegram.delivery import Deliveries
from channels.telegram.render import render
from session.events import Finish
from session.ids import SessionId
from tests.channels.telegram.stage import (
    ANSWER,
    LONG,
    SHOWN,
    FakeSession,
    Time,
    Wait,
    delivered,
    idle,
    of_chat,
    private,
    shows,
    shows_once,
    until,
)
from tests.fakes.telegram_faults import Fault
from tests.fakes.telegram_server import (
    AnswerLost,
    Hang,
    Html,
    Refuse,
    Reset,
    TelegramServer,
    TooMany,
)

GROUP = -100
FORUM = -1_001_000_000_001


@pytest.mark.parametrize(
    ("text", "finish", "shown"),
    [
        ("So far", "stopped", "So far\n\n(stopped)"),
        ("So far", "cut", "So far\n\n(cut off: the connection to the model broke)"),
        ("So far", "length", "So far\n\n(ends here: the model's length limit)"),
        ("", "filtered", "(withheld by the model's provider)"),
        ("", "stopped", "Stopped."),
        ("", "stop", "The model gave no answer."),
        ("```\n```", "stop", "The model gave no answer."),
        ("```py\nx = [", "cut", "x = [\n\n(cut off: the connection to the model broke)"),
    ],
)
async def test_how_it_ended_is_said(
    server: TelegramServer, deliveries: Deliveries, wait: Wait, text: str, finish: Finish, shown: str
) -> None:
    ann, session = server.user(7), private()
    deliveries.attend(session)
    session.ends("t1", text, finish=finish)
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == [shown]


async def test_an_apology_is_a_reply(server: TelegramServer, deliveries: Deliveries, wait: Wait) -> None:
    ann, session = server.user(7), private()
    deliveries.attend(session)
    session.fails("t1", "Sorry, the model is not there.")
    session.fails("t2", "Sorry, too many are waiting.")  # closed at once: it never began
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == ["Sorry, the model is not there.", "Sorry, too many are waiting."]


async def test_in_a_group_the_question_is_quoted(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, group = server.user(7), server.group(FORUM, forum=True)
    topic = group.opens_topic("Plans")
    first, last = (ann.says(text, into=group, thread=topic) for text in ("One", "Two"))
    session = of_chat(f"{FORUM}:topic:{topic}")
    deliveries.attend(session)
    session.ends("t1", LONG, f"{FORUM}_{first.id}", f"{FORUM}_{last.id}")
    await wait(lambda: delivered(session))
    messages = group.chat.bot_messages()
    assert [message.reply_to_id for message in messages] == [last.id, None, None]
    assert [message.thread for message in messages] == [topic] * 3
    assert [message.silent for message in messages] == [False, True, True]


async def test_two_topics_stream_at_once(server: TelegramServer, deliveries: Deliveries, wait: Wait) -> None:
    group = server.group(FORUM, forum=True)
    topics = [group.opens_topic(name) for name in ("A", "B")]
    sessions = [of_chat(f"{FORUM}:topic:{topic}") for topic in topics]
    for number, session in enumerate(sessions):
        deliveries.attend(session)
        session.begins("t", f"{FORUM}_1")
        session.says("t", f"This is for topic {number}, ")
    await wait(lambda: len([text for text in group.chat.texts() if "for topic" in text]) == 2)
    for number, session in enumerate(sessions):
        session.ends("t", f"This is for topic {number}, and no other.", f"{FORUM}_1")
    await wait(lambda: all(map(delivered, sessions)))
    shown = {message.thread: message.text for message in group.chat.bot_messages()}
    assert shown == {
        topic: f"This is for topic {number}, and no other." for number, topic in enumerate(topics)
    }


async def test_the_next_reply_waits_for_the_one_before(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = server.user(7), private()
    deliveries.attend(session)
    session.ends("t1", LONG)
    session.begins("t2", "7_2")
    session.says("t2", "And another thing")
    session.ends("t2", "And another thing.")
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == [*(part.text for part in split(render(LONG))), "And another thing."]


async def test_what_runs_already_is_shown_from_there(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = server.user(7), private()
    session.running = Running("t1", ("7_1",), "So far there are these words, ")
    deliveries.attend(session)
    await wait(shows(ann.chat, "these words"))
    session.ends("t1", "So far there are these words, and no more.")
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == ["So far there are these words, and no more."]


@pytest.mark.parametrize("fault", [AnswerLost(), Html(502, commit=True), Html(504), Reset(), TooMany(5)])
@pytest.mark.parametrize("method", ["sendMessage", "editMessageText"])
async def test_a_reply_is_there_once_whatever_is_not_answered(
    server: TelegramServer, deliveries: Deliveries, wait: Wait, method: str, fault: Fault
) -> None:
    ann, session = server.user(7), private()
    deliveries.attend(session)
    server.fail(method, fault)
    session.ends("t1", LONG)
    await wait(lambda: delivered(session))
    shows_once(ann.chat, LONG)


async def test_a_flood_wait_in_one_chat_holds_no_other(
    server: TelegramServer, deliveries: Deliveries, time: Time
) -> None:
    chats = [server.user(user).chat for user in range(7, 17)]
    sessions = [private(user) for user in range(7, 17)]
    server.flood(7, 60)
    begin = time()
    for session in sessions:
        deliveries.attend(session)
        session.ends("t1", ANSWER)
    await until(server, time, lambda: all(map(delivered, sessions[1:])), still=True)
    assert time() == begin  # not a moment longer than without it
    assert [chat.texts() for chat in chats] == [[], *[[SHOWN]] * 9]
    assert (deliveries.waiting, deliveries.floods) == (1, 1)
    time.go_on(60)
    await until(server, time, lambda: delivered(sessions[0]))
    assert chats[0].texts() == [SHOWN]


async def test_who_blocked_us_is_not_tried_again(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait
) -> None:
    ann, session = server.user(7), private()
    ann.blocks_bot()
    first = make()
    first.attend(session)
    session.ends("t1", ANSWER)
    await wait(lambda: session.recorded("delivery_failed"))
    [failed] = session.recorded("delivery_failed")
    assert (failed.turn, failed.content, failed.final) == (
        "t1",
        "Forbidden: bot was blocked by the user",
        True,
    )
    await wait(lambda: not first.waiting)
    [failure] = first.failures
    assert (failure.session, failure.turn, failure.reason) == (session.id, "t1", failed.content)
    assert (first.failed, first.delivered) == (1, 0)
    session.ends("t2", ANSWER)  # the next one is tried: people change their minds
    await wait(lambda: len(session.recorded("delivery_failed")) == 2)
    assert session.undelivered() == []


async def test_a_failed_delivery_is_tried_at_three_starts(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait
) -> None:
    ann, session = server.user(7), private()
    server.fail("sendMessage", Html(502), times=None)
    session.ends("t1", ANSWER)
    for start in range(1, 5):
        deliveries = make()
        deliveries.attend(session)
        await wait(idle(deliveries))
        assert len(session.recorded("delivery_failed")) == min(start, 3)
        await deliveries.close(0)
        session = session.after_restart()
    failed = session.recorded("delivery_failed")
    assert [event.final for event in failed] == [None, None, True]
    assert all("Bad Gateway" in (event.content or "") for event in failed)
    assert ann.chat.seen_texts() == []


async def test_a_failed_delivery_is_left_to_the_next_start(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = server.user(7), private()
    server.fail("sendMessage", Refuse(400, "Bad Request: CHAT_RESTRICTED"))
    deliveries.attend(session)
    for turn in ("t1", "t2"):
        session.ends(turn, f"Answer of {turn}.")
        await wait(idle(deliveries))
    assert ann.chat.texts() == ["Answer of t2."]
    assert [delivery.turn for delivery in session.undelivered()] == ["t1"]


async def test_a_reply_that_failed_is_brought_by_the_next_start(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait
) -> None:
    ann, session = server.user(7), private()
    fault = server.fail(
        "sendMessage", Refuse(400, "Bad Request: not enough rights to send text messages"), times=None
    )
    first = make()
    first.attend(session)
    session.ends("t1", ANSWER)
    await wait(lambda: first.failed)
    await first.close(0)
    fault.stop()
    again = session.after_restart()
    make().attend(again)
    await wait(lambda: delivered(again))
    assert ann.chat.texts() == [SHOWN]


# -- beginnings and ends -----------------------------------------------------------------------------


async def test_a_session_that_is_deleted_leaves_nothing_to_deliver(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    server.user(7)
    session = private()
    deliveries.attend(session)
    session.begins("t1", "7_1")
    session.tell(Done("t1", "stopped", ""))
    await wait(lambda: not deliveries.waiting)
    deliveries.dismiss(session.id)
    deliveries.dismiss(session.id)
    assert session.watcher is None
    assert deliveries.delivered == 0


async def test_a_session_of_somebody_else_is_left_alone(deliveries: Deliveries) -> None:
    deliveries.attend(FakeSession(SessionId("agent:main:telegram:nobody")))
    assert deliveries.waiting == 0


async def test_a_stop_lets_what_is_over_be_brought(server: TelegramServer, deliveries: Deliveries) -> None:
    ann, session = server.user(7), private()
    bea, running = server.user(8), private(8)
    deliveries.attend(session)
    deliveries.attend(running)
    running.begins("t1", "8_1")
    await server.until(lambda: bea.chat.actions)
    session.ends("t1", ANSWER)
    session.begins("t2", "7_2")
    async with asyncio.timeout(3):  # it does not wait for what runs
        await deliveries.close(5)
    assert delivered(session)
    assert ann.chat.texts() == [SHOWN]
    assert bea.chat.texts() == []


async def test_a_stop_records_what_is_being_sent(
    server: TelegramServer, deliveries: Deliveries, make: Callable[..., Deliveries], wait: Wait
) -> None:
    ann, session = server.user(7), private()
    deliveries.attend(session)
    server.fail("sendMessage", Hang())
    session.ends("t1", ANSWER)
    await server.until(lambda: server.calls)
    stopping = asyncio.create_task(deliveries.close(0.05))
    await asyncio.sleep(0.07)  # the first grace is over: it waits for the call alone
    server.release.set()
    await stopping
    assert [event.message_id for event in session.recorded("sent")] == [m.id for m in ann.chat.bot_messages()]
    again = session.after_restart()
    make().attend(again)
    await wait(lambda: delivered(again))
    shows_once(ann.chat, ANSWER)
    assert len(ann.chat.texts()) == 1


async def test_a_stop_does_not_wait_for_ever(server: TelegramServer, deliveries: Deliveries) -> None:
    server.user(7)
    session = private()
    deliveries.attend(session)
    server.fail("sendMessage", Hang(), times=None)
    session.ends("t1", ANSWER)
    await server.until(lambda: server.calls)
    async with asyncio.timeout(2):
        await deliveries.close(0.01)
    assert session.recorded("sent") == []


# -- notices -----------------------------------------------------------------------------------------


async def test_a_notice_is_sent_as_it_is_written(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, group = server.user(7), server.group(GROUP)
    question = ann.says("/help", into=group)
    await deliveries.say(Chat(GROUP), "/new *begins* anew\ud800", question.id)
    [message] = group.chat.bot_messages()
    assert (message.text, message.entities, message.reply_to_id) == ("/new *begins* anew�", [], question.id)
    long = asyncio.create_task(deliveries.say(Chat(7), "x" * 5_000))
    await wait(long.done)
    assert [len(text) for text in ann.chat.texts()] == [4096, 904]


@pytest.mark.parametrize(
    "fault", [Refuse(403, "Forbidden: bot was blocked by the user"), Html(502), TooMany(90)]
)
async def test_a_notice_that_cannot_be_brought_harms_nobody(
    server: TelegramServer, deliveries: Deliveries, wait: Wait, fault: Fault
) -> None:
    ann = server.user(7)
    server.fail("sendMessage", fault, times=None)
    notice = asyncio.create_task(deliveries.say(Chat(7), "Hello"))
    await wait(notice.done)
    assert notice.exception() is None
    assert ann.chat.texts() == []


async def test_a_notice_follows_a_group_that_moved(server: TelegramServer, deliveries: Deliveries) -> None:
    new = server.group(GROUP, members=(server.user(7),)).migrates()
    await deliveries.say(Chat(GROUP), "Hello")
    assert new.chat.texts() == ["Hello"]
