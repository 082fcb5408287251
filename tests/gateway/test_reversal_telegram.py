"""/retry and /undo from Telegram, through the real daemon."""

from tests.conftest import Daemons
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer

TOKEN = "123456:AAretryretryretryretryretryretryret"


async def test_the_answer_goes_to_the_command(daemons: Daemons, openai: OpenAIServer) -> None:
    async with TelegramServer(TOKEN) as telegram:
        daemon = daemons(
            server=openai,
            TELEGRAM_BOT_TOKEN=TOKEN,
            LUNAR_CHANNELS__TELEGRAM__API_URL=telegram.api_url,
            LUNAR_CHANNELS__TELEGRAM__ALLOW="[7]",
        )
        await daemon.start()
        await daemon.logged("channel ready", channel="telegram")
        hao = telegram.user(7, "Hao")
        hao.says("one")
        await telegram.until(lambda: hao.chat.texts() == ["echo: one"], timeout=15)
        hao.says("two")
        await telegram.until(lambda: hao.chat.texts()[1:] == ["echo: two"], timeout=15)
        hao.says("/retry")
        await telegram.until(lambda: hao.chat.texts()[2:] == ["echo: two"], timeout=15)
        asked = [message["content"] for message in openai.requests[-1].body["messages"][1:]]
        assert asked == ["one", "echo: one", "two"]
        events = daemon.events("agent:main:telegram:user:7")
        messages = [event["id"] for event in events if event["role"] == "user"]
        assert [event["answers"] for event in events if "answers" in event] == [[id] for id in messages]
        assert len(set(messages)) == 3
        hao.says("/undo")
        await telegram.until(lambda: "“two”" in hao.chat.texts()[-1], timeout=15)
        hao.says("three")
        await telegram.until(lambda: hao.chat.texts()[-1] == "echo: three", timeout=15)
        asked = [message["content"] for message in openai.requests[-1].body["messages"][1:]]
        assert asked == ["one", "echo: one", "three"]
