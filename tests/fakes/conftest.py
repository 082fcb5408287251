"""The fake Bot API server with a clock of its own, and the real library pointed at it."""

from collections.abc import AsyncIterator

import pytest
from telegram import Bot
from telegram.request import HTTPXRequest

from tests.fakes.telegram_server import TelegramServer

TOKEN = "123456:AAtest-token_of-the-right-form"


class Clock:
    """Unix seconds that move when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server(clock: Clock) -> AsyncIterator[TelegramServer]:
    async with TelegramServer(TOKEN, clock=clock, retry_pause=0.01) as server:
        yield server


@pytest.fixture
async def bot(server: TelegramServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bot]:
    monkeypatch.setenv(
        "PTB_TIMEDELTA", "true"
    )  # otherwise RetryAfter warns of its own change whenever it is made
    bot = Bot(
        server.token,
        base_url=server.api_url + "/bot",
        base_file_url=server.api_url + "/file/bot",
        request=HTTPXRequest(connection_pool_size=8, httpx_kwargs={"verify": False}),
        get_updates_request=HTTPXRequest(connection_pool_size=4, httpx_kwargs={"verify": False}),
    )
    async with bot:
        yield bot


async def ids(bot: Bot, **asked: object) -> list[int]:
    # The name of a method the library knows would make it warn; the API takes any case.
    updates = await bot.do_api_request("getupdates", api_kwargs=asked)
    return [update["update_id"] for update in updates]
