"""Updates that Telegram brings: who may bring them, and when it is told that they are stored."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from telegram import Bot

from channels.errors import Refused
from channels.telegram.dead_letters import FILE
from tests.channels.telegram.ledger import House
from tests.fakes.telegram_server import Html, TelegramServer, unauthorized

_HEADER = "X-Telegram-Bot-Api-Secret-Token"


class Front:
    """The gateway's HTTP port, as far as the channel needs it."""

    def __init__(self) -> None:
        self.house: House | None = None
        self.url = ""
        self.statuses: list[int] = []
        self.lose = 0  # how many answers are not brought to Telegram

    async def take(self, request: web.Request) -> web.Response:
        assert self.house is not None
        channel = self.house.channel
        assert request.path == channel.webhook_path
        status = await channel.webhook(request.headers.get(_HEADER), await request.read())
        self.statuses.append(status)
        if self.lose:
            self.lose -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=status)


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    front, app = Front(), web.Application()
    app.router.add_post("/telegram/{hash}", front.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    front.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield front
    await runner.cleanup()


@pytest.fixture
async def house(houses: Callable[..., House], front: Front) -> House:
    front.house = houses(mode="webhook", webhook_url=front.url)
    return front.house


def body(update: object) -> bytes:
    return json.dumps(update).encode()


def update(number: int, text: str = "Hello") -> dict[str, object]:
    ann = {"id": 7, "first_name": "Ann"}
    message = {
        "message_id": number,
        "date": 1,
        "chat": ann | {"type": "private"},
        "from": ann | {"is_bot": False},
        "text": text,
    }
    return {"update_id": number, "message": message}


async def test_it_is_set_and_brings_messages(server: TelegramServer, house: House, front: Front) -> None:
    await house.start()
    assert server.updates.webhook is not None
    assert server.updates.webhook.url == front.url.rstrip("/") + (house.channel.webhook_path or "")
    for user in (7, 8):
        server.user(user).says("one")
        server.user(user).says("two")
    await house.settled()
    assert house.ledger.texts("user:7") == house.ledger.texts("user:8") == ["one", "two"]
    assert not server.calls_of("getUpdates")


async def test_neither_path_nor_secret_hold_the_token_or_each_other(house: House) -> None:
    token, path = house.settings.bot_token, house.channel.webhook_path or ""
    assert house.settings.webhook_secret == hashlib.sha256(token.encode()).hexdigest()
    assert token.split(":")[1] not in path
    assert path.removeprefix("/telegram/") not in house.settings.webhook_secret


async def test_what_waits_at_telegram_survives_a_change_of_mode_and_of_process(
    server: TelegramServer, houses: Callable[..., House], house: House, front: Front
) -> None:
    polling = houses()
    polling.ledger = house.ledger
    for number, at_work in enumerate((house, polling, house, polling)):
        server.user(7).says(str(number))
        await at_work.start()
        await at_work.settled()
        assert (server.updates.webhook is None) is (at_work is polling)
        await at_work.stop()
    assert house.ledger.texts() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("secret", [None, "", "wrong", "\ud800", "ä", "x" * 100_000])
async def test_only_who_knows_the_secret_may_bring(house: House, secret: str | None) -> None:
    await house.start()
    assert await house.channel.webhook(secret, body(update(1))) == 401
    assert await house.channel.webhook(house.settings.webhook_secret[:-1], body(update(1))) == 401
    assert await house.channel.webhook(house.settings.webhook_secret, body(update(1))) == 200
    assert house.ledger.texts() == ["Hello"]


async def test_nothing_is_taken_before_it_runs(house: House, houses: Callable[..., House]) -> None:
    secret = house.settings.webhook_secret
    assert await house.channel.webhook(secret, body(update(1))) == 503
    polling = houses()
    await polling.start()
    assert await polling.channel.webhook(secret, body(update(1))) == 503
    assert polling.channel.webhook_path is None


async def test_200_comes_only_after_the_store(house: House) -> None:
    await house.start()
    house.ledger.gate.clear()
    brought = asyncio.create_task(house.channel.webhook(house.settings.webhook_secret, body(update(1))))
    await house.until(lambda: house.ledger.at_once)
    assert not brought.done()
    house.ledger.gate.set()
    assert await brought == 200


@pytest.mark.parametrize("code", ["storage_unavailable", "shutting_down"])
async def test_what_cannot_be_stored_is_brought_again(
    server: TelegramServer, house: House, front: Front, code: str
) -> None:
    refusals = [Refused(code, "not now")] * 3  # type: ignore[arg-type]  # one of the codes
    house.ledger.refuse = lambda _: refusals.pop() if refusals else None
    await house.start()
    server.user(7).says("one")
    server.user(7).says("two")
    await house.settled()
    assert house.ledger.texts() == ["one", "two"]
    assert front.statuses == [503, 503, 503, 200, 200]


async def test_what_is_brought_twice_is_stored_once(
    server: TelegramServer, house: House, front: Front
) -> None:
    await house.start()
    front.lose = 2
    server.user(7).says("Hello")
    await house.settled()
    assert front.statuses == [200, 200, 200]
    assert house.ledger.texts() == ["Hello"]
    assert house.ledger.repeats == 0  # known by the channel itself


async def test_what_is_brought_twice_at_the_same_time_is_stored_once(house: House) -> None:
    await house.start()
    house.ledger.gate.clear()
    secret = house.settings.webhook_secret
    twice = [asyncio.create_task(house.channel.webhook(secret, body(update(1)))) for _ in range(2)]
    await house.until(lambda: house.ledger.at_once)
    house.ledger.gate.set()
    assert await asyncio.gather(*twice) == [200, 200]
    assert house.ledger.texts() == ["Hello"]
    assert house.ledger.repeats == 0


async def test_what_is_brought_again_to_another_process_is_stored_once(house: House) -> None:
    await house.start()
    secret = house.settings.webhook_secret
    assert await house.channel.webhook(secret, body(update(1))) == 200
    await house.stop()
    await house.start()
    assert await house.channel.webhook(secret, body(update(1))) == 200
    assert house.ledger.texts() == ["Hello"]
    assert house.ledger.repeats == 1


@pytest.mark.parametrize(
    "garbage", [b"", b"not json", b"\xff\x00", b"[" * 100_000, b"null", b'"text"', b"{}"]
)
async def test_garbage_is_not_asked_for_again(house: House, garbage: bytes) -> None:
    await house.start()
    secret = house.settings.webhook_secret
    assert await house.channel.webhook(secret, garbage) == 200
    assert await house.channel.webhook(secret, body(update(1))) == 200
    assert house.ledger.texts() == ["Hello"]


async def test_poison_goes_to_the_dead_letters(server: TelegramServer, house: House) -> None:
    await house.start()
    poison = server.push_raw({"message": {"message_id": "x"}})
    server.user(7).says("Hello")
    await house.settled()
    assert house.ledger.texts() == ["Hello"]
    [kept] = [json.loads(line) for line in (house.folder / FILE).read_text().splitlines()]
    assert kept["update"] == poison.body


async def test_a_webhook_that_somebody_changed_is_set_again(
    server: TelegramServer, house: House, bot: Bot
) -> None:
    await house.start()
    await bot.delete_webhook()
    server.user(7).says("Hello")
    await house.until(lambda: house.ledger.texts())
    assert house.channel.health is None


async def test_an_address_that_telegram_cannot_reach_is_named(
    server: TelegramServer, house: House, front: Front
) -> None:
    house.ledger.refuse = lambda _: Refused("storage_unavailable", "not now")
    await house.start()
    server.user(7).says("Hello")
    await house.until(lambda: house.channel.health)
    assert "channels.telegram.webhook_url" in (house.channel.health or "")
    assert "503" in (house.channel.health or "")
    house.ledger.refuse = lambda _: None
    await house.settled()
    await house.until(lambda: house.channel.health is None)


async def test_trouble_at_the_start_is_waited_out(server: TelegramServer, house: House) -> None:
    server.fail("setWebhook", Html(502), times=2)
    server.fail("getMe", unauthorized())
    await house.start(wait=False)
    await house.until(lambda: house.channel.health)
    assert "TELEGRAM_BOT_TOKEN" in (house.channel.health or "")
    await house.until(lambda: house.readied)
    assert house.channel.health is None
