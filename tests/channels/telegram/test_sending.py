"""Each call to the Bot API until it is done or refused, through the real library."""

import asyncio

import pytest
from telegram import Bot
from telegram.error import TelegramError

from channels.telegram.chat import Chat, of_peer, of_session
from channels.telegram.errors import (
    BadPeer,
    Flooded,
    Moved,
    NoSuchMessage,
    NoSuchThread,
    NotDone,
    NotReached,
    Rejected,
    Unchanged,
    Unformattable,
    Unknown,
    Unreachable,
    classify,
)
from channels.telegram.formatted import Formatted, Span
from channels.telegram.sending import NOTICE, Sending, connect
from session.ids import SessionId
from tests.channels.telegram.stage import Time, finished, until
from tests.fakes.telegram_faults import Fault
from tests.fakes.telegram_server import (
    AnswerLost,
    Garbage,
    Hang,
    Html,
    Refuse,
    Reset,
    TelegramServer,
    TooMany,
    Truncated,
    conflict,
    unauthorized,
)

ANN = Chat(7)
BOLD = Formatted("bold text", (Span("bold", 0, 4),))


@pytest.fixture
def sending(bot: Bot, time: Time) -> Sending:
    return Sending(bot, time, time.sleep)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (TooMany(3), Flooded),
        (Reset(), Unknown),
        (AnswerLost(), Unknown),
        (Html(502), Unknown),
        (Html(504, commit=True), Unknown),
        (Refuse(500, "Internal Server Error"), Unknown),
        (Garbage(), Unknown),
        (Truncated(), Unknown),
        (Hang(), Unknown),
        (unauthorized(), NotReached),
        (Refuse(429, "Too Many Requests"), NotReached),
        (conflict(), NotReached),
        (Refuse(403, "Forbidden: bot was blocked by the user"), Unreachable),
        (Refuse(403, "Forbidden: user is deactivated"), Unreachable),
        (Refuse(400, "Bad Request: chat not found"), Rejected),
        (Refuse(400, "Bad Request: not enough rights to send text messages to the chat"), Rejected),
        (Refuse(400, "Bad Request: message is not modified: specified new message content"), Unchanged),
        (Refuse(400, "Bad Request: message to edit not found"), NoSuchMessage),
        (Refuse(400, "Bad Request: message can't be edited"), NoSuchMessage),
        (Refuse(400, "Bad Request: MESSAGE_ID_INVALID"), NoSuchMessage),
        (Refuse(400, "Bad Request: message to delete not found"), NoSuchMessage),
        (Refuse(400, "Bad Request: message thread not found"), NoSuchThread),
        (Refuse(400, "Bad Request: TOPIC_CLOSED"), NoSuchThread),
        (Refuse(400, "Bad Request: TOPIC_DELETED"), NoSuchThread),
        (Refuse(400, "Bad Request: can't parse entities: unsupported"), Unformattable),
        (Refuse(400, "Bad Request: entity begins after the end of the text"), Unformattable),
        (Refuse(400, "Bad Request: Wrong HTTP URL specified"), Unformattable),
    ],
)
async def test_the_table_of_errors(
    server: TelegramServer, bot: Bot, fault: Fault, kind: type[NotDone]
) -> None:
    server.user(7)
    server.fail("sendMessage", fault)
    with pytest.raises(TelegramError) as failed:
        await bot.send_message(7, "x", read_timeout=0.05 if isinstance(fault, Hang) else 5)
    assert type(classify(failed.value, bot.token)) is kind


async def test_what_never_arrived_is_known_not_to_have(server: TelegramServer, bot: Bot) -> None:
    await server.stop_listening()
    kinds = []
    for _ in range(2):  # the first may find the connection closed that was kept open, and may be too late
        with pytest.raises(TelegramError) as failed:
            await bot.send_message(7, "x")
        kinds.append(type(classify(failed.value, bot.token)))
    assert kinds[0] in (Unknown, NotReached)
    assert kinds[1] is NotReached
    await server.start_listening()


async def test_waiting_for_a_connection_in_vain_is_no_send(server: TelegramServer, bot: Bot) -> None:
    server.user(7)
    server.fail("sendMessage", Hang(), times=None)
    sends = [asyncio.create_task(bot.send_message(7, "x")) for _ in range(64)]
    await server.until(lambda: len(server.calls_of("sendMessage")) == 64)
    with pytest.raises(TelegramError) as failed:
        await bot.send_message(7, "x", pool_timeout=0.01)
    assert type(classify(failed.value, bot.token)) is NotReached
    server.heal()
    server.release.set()
    await asyncio.gather(*sends)


def test_a_reason_holds_neither_the_token_nor_a_whole_page() -> None:
    reason = str(classify(TelegramError("at /bot1:secret/ " + "x" * 1_000), "1:secret"))
    assert reason.startswith("at /bot<token>/ x")
    assert len(reason) == 200


async def test_a_message_with_all_that_belongs_to_it(server: TelegramServer, sending: Sending) -> None:
    ann = server.user(7)
    group = server.group(-1_001_000_000_001, forum=True)
    topic = group.opens_topic("Plans")
    question = ann.says("What?", into=group, thread=topic)
    kept: list[int] = []

    async def keep(message_id: int) -> None:
        kept.append(message_id)

    await sending.send(Chat(group.id, topic), BOLD, reply_to=question.id, silent=True, kept=keep)
    [message] = group.chat.bot_messages()
    assert (message.text, message.thread, message.reply_to_id, message.silent) == (
        "bold text",
        topic,
        question.id,
        True,
    )
    assert message.entities == [{"type": "bold", "offset": 0, "length": 4}]
    assert message.extra["link_preview_options"] == {"is_disabled": True}
    assert kept == [message.id]


async def test_a_deleted_question_is_not_quoted(server: TelegramServer, sending: Sending) -> None:
    ann, group = server.user(7), server.group(-100)
    question = ann.says("What?", into=group)
    group.chat.delete(question)
    await sending.send(Chat(-100), BOLD, reply_to=question.id)
    assert [message.reply_to_id for message in group.chat.bot_messages()] == [None]


async def test_a_flood_wait_is_waited_out_in_its_chat_only(
    server: TelegramServer, sending: Sending, time: Time
) -> None:
    ann, bea = server.user(7), server.user(8)
    server.flood(7, 60)
    held = asyncio.create_task(sending.send(ANN, Formatted("late")))
    await until(server, time, lambda: sending.floods)
    begin = time()
    await sending.send(Chat(8), Formatted("at once"))
    assert (time(), ann.chat.texts(), bea.chat.texts()) == (begin, [], ["at once"])
    time.go_on(60)
    await held
    assert ann.chat.texts() == ["late"]


@pytest.mark.parametrize("fault", [AnswerLost(), Html(502), Garbage(), Reset()])
async def test_an_edit_is_repeated_until_it_is_there(
    server: TelegramServer, sending: Sending, time: Time, fault: Fault
) -> None:
    ann = server.user(7)
    ids: list[int] = []

    async def keep(message_id: int) -> None:
        ids.append(message_id)

    await sending.send(ANN, Formatted("first"), kept=keep)
    server.fail("editMessageText", fault, times=3)
    await finished(server, time, sending.edit(ANN, ids[0], BOLD))
    assert ann.chat.seen_texts() == ["first", "bold text"]


async def test_a_formatting_that_is_refused_is_left_out(
    server: TelegramServer, sending: Sending, time: Time
) -> None:
    ann = server.user(7)
    server.fail(
        "sendMessage", Refuse(400, "Bad Request: can't parse entities: no"), when=lambda p: "entities" in p
    )
    await sending.send(ANN, BOLD)
    [message] = ann.chat.bot_messages()
    assert (message.text, message.entities) == ("bold text", [])
    server.fail("editMessageText", Refuse(400, "Bad Request: can't parse entities: no"))
    other = Formatted("other", (Span("code", 0, 5),))
    await finished(server, time, sending.edit(ANN, message.id, other))
    assert (message.text, message.entities) == ("other", [])


async def test_a_message_that_is_gone_needs_no_deletion(server: TelegramServer, sending: Sending) -> None:
    ann = server.user(7)
    await sending.send(ANN, BOLD)
    [message] = ann.chat.bot_messages()
    await sending.delete(ANN, message.id)
    await sending.delete(ANN, message.id)
    assert ann.chat.texts() == []


async def test_after_ten_minutes_of_trouble_it_gives_up(
    server: TelegramServer, sending: Sending, time: Time
) -> None:
    server.user(7)
    server.fail("sendMessage", Html(502), times=None)
    begin = time()
    with pytest.raises(Unknown, match="Bad Gateway"):
        await finished(server, time, sending.send(ANN, BOLD))
    assert 600 <= time() - begin < 640


async def test_flood_waits_are_no_trouble(server: TelegramServer, sending: Sending, time: Time) -> None:
    ann = server.user(7)
    server.fail("sendMessage", TooMany(500), times=4)
    await finished(server, time, sending.send(ANN, BOLD))
    assert ann.chat.texts() == ["bold text"]


async def test_trouble_counts_anew_after_a_flood_wait(
    server: TelegramServer, sending: Sending, time: Time
) -> None:
    ann = server.user(7)
    for fault, times in ((Html(502), 3), (TooMany(590), 1), (Html(502), 3)):
        server.fail("sendMessage", fault, times=times)
    await finished(server, time, sending.send(ANN, BOLD))
    assert ann.chat.texts() == ["bold text"]


async def test_a_notice_is_not_sent_again_where_it_may_have_arrived(
    server: TelegramServer, sending: Sending, time: Time
) -> None:
    ann = server.user(7)
    server.fail("sendMessage", AnswerLost())
    with pytest.raises(Unknown):
        await sending.send(ANN, BOLD, patience=NOTICE)
    assert ann.chat.texts() == ["bold text"]
    server.flood(7, 300)
    with pytest.raises(Flooded):
        await sending.send(ANN, BOLD, patience=NOTICE)


async def test_a_call_that_is_under_way_ends_before_its_caller(
    server: TelegramServer, sending: Sending
) -> None:
    ann = server.user(7)
    kept: list[int] = []

    async def keep(message_id: int) -> None:
        kept.append(message_id)

    server.fail("sendMessage", Hang())
    send = asyncio.create_task(sending.send(ANN, BOLD, kept=keep))
    await server.until(lambda: server.calls_of("sendMessage"))
    send.cancel()
    await asyncio.sleep(0)
    assert not send.done()
    server.release.set()
    with pytest.raises(asyncio.CancelledError):
        await send
    assert kept == [message.id for message in ann.chat.bot_messages()]


async def test_aborting_breaks_off_what_hangs(server: TelegramServer, sending: Sending) -> None:
    server.user(7)
    server.fail("sendMessage", Hang())
    send = asyncio.create_task(sending.send(ANN, BOLD))
    await server.until(lambda: server.calls_of("sendMessage"))
    sending.abort()
    with pytest.raises(asyncio.CancelledError):
        await send
    server.release.set()


async def test_what_nobody_misses_is_tried_once_and_not_in_a_flood_wait(
    server: TelegramServer, sending: Sending
) -> None:
    ann = server.user(7)
    await sending.typing(ANN)
    await sending.draft(ANN, 5, BOLD)
    server.fail("*", Html(502), times=2)
    await sending.typing(ANN)
    await sending.draft(ANN, 5, BOLD)
    server.flood(7, 60)
    await sending.typing(ANN)
    calls = len(server.calls)
    await sending.typing(ANN)
    await sending.draft(ANN, 5, BOLD)
    assert len(server.calls) == calls
    assert [action.action for action in ann.chat.actions] == ["typing"]
    assert [(draft.draft_id, draft.text) for draft in ann.chat.drafts] == [(5, "bold text")]


async def test_a_moved_group_says_where_it_is(server: TelegramServer, sending: Sending) -> None:
    group = server.group(-100, members=(server.user(7),))
    new = group.migrates()
    with pytest.raises(Moved) as moved:
        await sending.send(Chat(-100), BOLD)
    assert moved.value.chat_id == new.id


@pytest.mark.parametrize(
    ("peer", "address", "chat"),
    [
        ("user:7", None, Chat(7)),
        ("chat:-100", None, Chat(-100)),
        ("chat:-100:topic:9", None, Chat(-100, 9)),
        ("chat:-100:topic:1", None, Chat(-100)),  # the general topic has no id for a bot
        ("chat:-100:topic:9", "-1001", Chat(-1001, 9)),
    ],
)
def test_a_peer_is_a_place(peer: str, address: str | None, chat: Chat) -> None:
    assert of_peer(peer, address) == chat
    assert of_session(SessionId(f"agent:main:telegram:{peer}"), address) == chat


@pytest.mark.parametrize("peer", ["user:x", "local", "chat:-100:topic:", "user:-7"])
def test_another_peer_is_none(peer: str) -> None:
    with pytest.raises(BadPeer):
        of_peer(peer)
    with pytest.raises(BadPeer):
        of_peer("chat:-100", "somewhere")
    with pytest.raises(BadPeer):
        of_session(SessionId(peer), None)


def test_a_stored_message_belongs_to_its_chat() -> None:
    assert Chat(-100).message("-100_12") == 12
    assert Chat(-1001).message("-100_12") is None
    assert Chat(7).message("m1") is None
    assert (Chat(7).private, Chat(-100).private) == (True, False)


async def test_the_api_server_is_named_by_its_root(server: TelegramServer) -> None:
    async with connect(server.token, server.api_url + "/") as bot:
        assert bot.username == "lunar_bot"
