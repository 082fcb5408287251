"""The fake Bot API server with the tests' own time, and the real library pointed at it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from telegram import Bot

from channels.telegram.delivery import Deliveries
from channels.telegram.reply import Streaming
from channels.telegram.sending import connect
from tests.channels.telegram.ledger import House
from tests.channels.telegram.stage import Time, Wait, until
from tests.fakes.telegram_server import TelegramServer

TOKEN = "123456:AAtest-token_of-the-right-form"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No certificates: to load them takes 40 ms for each HTTP client, and loopback needs none."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture
async def server(time: Time) -> AsyncIterator[TelegramServer]:
    async with TelegramServer(TOKEN, clock=time, retry_pause=0.01) as server:
        yield server


@pytest.fixture
async def bot(server: TelegramServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bot]:
    monkeypatch.setenv("PTB_TIMEDELTA", "true")
    async with connect(server.token, server.api_url) as bot:
        yield bot


@pytest.fixture
async def houses(
    server: TelegramServer, time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., House]]:
    """Makes channels, not started yet; stops them."""
    monkeypatch.setenv("PTB_TIMEDELTA", "true")
    made: list[House] = []

    def make(**settings: Any) -> House:
        made.append(House(server, time, tmp_path, **settings))
        return made[-1]

    yield make
    for house in made:
        await house.stop()


@pytest.fixture
async def house(houses: Callable[..., House]) -> House:
    """A channel for 7, 8, 9 and the group -100, not started yet."""
    return houses()


@pytest.fixture
async def make(bot: Bot, time: Time) -> AsyncIterator[Callable[..., Deliveries]]:
    """Makes the outgoing half alone, as often as it is started."""
    made: list[Deliveries] = []

    def deliveries(streaming: Streaming = "edit", *, shared: bool = False) -> Deliveries:
        made.append(Deliveries(bot, streaming=streaming, shared=shared, clock=time, sleep=time.sleep))
        return made[-1]

    yield deliveries
    for each in made:
        await each.close(0)


@pytest.fixture
def deliveries(make: Callable[..., Deliveries]) -> Deliveries:
    return make()


@pytest.fixture
def wait(server: TelegramServer, time: Time) -> Wait:
    return lambda condition: until(server, time, condition)
