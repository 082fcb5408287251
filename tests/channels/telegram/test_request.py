"""The HTTP client of the Bot API: what its answers leave behind."""

import pytest
from telegram import Bot
from telegram.error import TelegramError

from tests.fakes.garbage import garbage
from tests.fakes.telegram_server import Refuse, TelegramServer


async def test_an_answer_that_was_read_waits_for_no_collector(server: TelegramServer, bot: Bot) -> None:
    server.user(7)
    with garbage() as left:
        sent = await bot.send_message(7, "Hello")
        server.fail("sendMessage", Refuse(400, "Bad Request: chat not found"))
        with pytest.raises(TelegramError, match="hat not found"):
            await bot.send_message(7, "Hello")
    assert sent.text == "Hello"
    assert not left.of("httpx", "httpcore")
