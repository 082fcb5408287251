"""Each fault of the fake Bot API server, as the real library sees it and as the ledger remembers it."""

import asyncio

import pytest
from telegram import Bot
from telegram.error import Conflict, InvalidToken, NetworkError, RetryAfter, TelegramError, TimedOut

from tests.fakes.telegram_faults import Fault
from tests.fakes.telegram_server import (
    AnswerLost,
    Garbage,
    Hang,
    Html,
    Refuse,
    Reset,
    Slow,
    TelegramServer,
    TooMany,
    Trickle,
    Truncated,
    conflict,
    unauthorized,
)


@pytest.mark.parametrize(
    ("fault", "error", "message", "committed"),
    [
        (AnswerLost(), NetworkError, "Server disconnected", True),
        (AnswerLost(reset=True), NetworkError, "ReadError", True),
        (Reset(), NetworkError, "ReadError", False),
        (Html(502), NetworkError, "Bad Gateway", False),
        (Html(502, commit=True), NetworkError, "Bad Gateway", True),
        (Html(504), NetworkError, "Gateway Timeout", False),
        (Refuse(500, "Internal Server Error"), NetworkError, "Internal Server Error", False),
        (TooMany(3), RetryAfter, "Retry in 0:00:03", False),
        (unauthorized(), InvalidToken, "Unauthorized", False),
        (conflict(), Conflict, "other getUpdates", False),
        (Garbage(), TelegramError, "Invalid server response", True),
        (Garbage(b""), TelegramError, "Invalid server response", True),
        (Truncated(), TelegramError, "Invalid server response", True),
    ],
)
async def test_a_fault_happens_once_and_the_ledger_tells_what_came_of_it(
    server: TelegramServer, bot: Bot, fault: Fault, error: type[TelegramError], message: str, committed: bool
) -> None:
    ann = server.user(7)
    server.fail("sendMessage", fault)
    with pytest.raises(error) as failed:
        await bot.send_message(7, "first")
    assert type(failed.value) is error
    assert message in str(failed.value)
    assert ann.chat.texts() == (["first"] if committed else [])
    assert server.calls_of("sendMessage")[0].committed is committed
    await bot.send_message(7, "second")
    call = server.calls_of("sendMessage")[1]
    assert (call.committed, call.answered, call.status, call.params["text"]) == (True, True, 200, "second")


async def test_an_answer_that_was_lost_is_not_answered(server: TelegramServer, bot: Bot) -> None:
    server.user(7)
    server.fail("sendMessage", AnswerLost())
    with pytest.raises(NetworkError):
        await bot.send_message(7, "x")
    assert not server.calls[-1].answered


async def test_a_trickle_is_slow_and_whole(server: TelegramServer, bot: Bot) -> None:
    server.user(7)
    server.fail("sendMessage", Trickle(size=32, pause=0.001))
    assert (await bot.send_message(7, "drop by drop")).text == "drop by drop"


async def test_a_hanging_call_is_carried_out_even_after_its_client_left(
    server: TelegramServer, bot: Bot
) -> None:
    ann = server.user(7)
    server.fail("sendMessage", Hang())
    with pytest.raises(TimedOut):
        await bot.send_message(7, "late", read_timeout=0.1)
    assert ann.chat.texts() == []
    await bot.get_me()  # after a round trip the server knows that the first connection has ended
    server.release.set()
    await server.until(lambda: ann.chat.texts() == ["late"])
    late = server.calls_of("sendMessage")[0]
    assert (late.committed, late.answered) == (True, False)


async def test_a_hanging_answer_leaves_the_message_there(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    server.fail("sendMessage", Hang(commit=True))
    sending = asyncio.create_task(bot.send_message(7, "there already"))
    await server.until(lambda: ann.chat.texts())
    assert not sending.done()
    server.release.set()
    assert (await sending).text == "there already"


async def test_a_slow_answer(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    server.fail("sendMessage", Slow(0.02, commit=True))
    sending = asyncio.create_task(bot.send_message(7, "slow"))
    await server.until(lambda: ann.chat.texts())
    assert not sending.done()
    assert (await sending).text == "slow"


async def test_faults_by_count_by_predicate_and_until_they_end(server: TelegramServer, bot: Bot) -> None:
    ann, bea = server.user(7), server.user(8)
    planned = server.fail("sendMessage", Html(), times=None, when=lambda asked: asked["chat_id"] == 7)
    for _ in range(3):
        with pytest.raises(NetworkError):
            await bot.send_message(7, "x")
    await bot.send_message(8, "not concerned")
    assert planned.happened == 3
    planned.stop()
    await bot.send_message(7, "healed")
    server.fail("*", Html(), times=2)
    for call in (bot.get_me, bot.get_updates):
        with pytest.raises(NetworkError):
            await call()
    await bot.get_me()
    server.fail("getUpdates", conflict(), times=None)
    with pytest.raises(Conflict):
        await bot.get_updates()
    server.heal()
    assert await bot.get_updates() == ()
    assert (ann.chat.texts(), bea.chat.texts()) == (["healed"], ["not concerned"])


async def test_a_lost_answer_to_a_poll_loses_no_update(server: TelegramServer, bot: Bot) -> None:
    server.user(7).says("once")
    server.fail("getUpdates", AnswerLost())
    with pytest.raises(NetworkError):
        await bot.get_updates()
    assert len(await bot.get_updates()) == 1


async def test_a_server_that_is_down_comes_back_on_the_same_port(server: TelegramServer, bot: Bot) -> None:
    url = server.api_url
    poll = asyncio.create_task(bot.get_updates(timeout=30))
    await server.until(lambda: server.updates.is_polled)
    await server.stop_listening()
    with pytest.raises(NetworkError, match="Server disconnected"):
        await poll
    with pytest.raises(NetworkError, match="ConnectError"):
        await bot.get_me()
    server.user(7).says("meanwhile")
    await server.start_listening()
    assert server.api_url == url
    assert len(await bot.get_updates()) == 1


async def test_a_download_can_fail_too(server: TelegramServer, bot: Bot) -> None:
    server.user(7).sends_voice(b"sound")
    message = (await bot.get_updates())[0].message
    assert message is not None
    assert message.voice is not None
    file = await message.voice.get_file()
    server.fail("file", Html(502))
    with pytest.raises(NetworkError, match="Bad Gateway"):
        await file.download_as_bytearray()
    assert bytes(await file.download_as_bytearray()) == b"sound"
