"""Updates reach the bot by Telegram's rules: offsets, long polls, the queue's age, webhooks."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from telegram import (
    Bot,
)
from telegram.error import (
    BadRequest,
    Conflict,
)

from tests.fakes.conftest import TOKEN, Clock, ids
from tests.fakes.telegram_server import Slow, TelegramServer
from tests.fakes.telegram_updates import Webhook

GROUP = -100


async def test_an_offset_confirms_what_is_below_it_and_the_rest_comes_again(
    server: TelegramServer, bot: Bot
) -> None:
    ann = server.user(7)
    first = server.updates.next_id
    for number in range(5):
        ann.says(f"message {number}")
    every = list(range(first, first + 5))
    assert await ids(bot) == every
    assert await ids(bot, offset=0) == every
    assert await ids(bot, limit=2) == every[:2]
    assert await ids(bot, offset=first + 2) == every[2:]
    assert await ids(bot, offset=first) == every[2:]  # an older offset brings nothing back
    assert await ids(bot, offset=-1) == every[4:]  # a negative one forgets all but the last
    assert await ids(bot) == every[4:]
    assert await ids(bot, offset=first + 5) == []


async def test_an_offset_from_another_numbering_is_answered_from_the_head(
    server: TelegramServer, bot: Bot
) -> None:
    ann = server.user(7)
    ann.says("old")
    [old] = await ids(bot)
    assert await ids(bot, offset=old + 1) == []
    server.restart_update_ids(first=1_000)
    ann.says("new")
    assert await ids(bot, offset=old + 1) == [1_000]
    assert await ids(bot, offset=old + 1) == [1_000]
    assert await ids(bot, offset=1_001) == []


async def test_restarting_the_numbering_needs_an_empty_queue(server: TelegramServer) -> None:
    server.user(7).says("waiting")
    with pytest.raises(ValueError, match="nothing is pending"):
        server.restart_update_ids()


async def test_a_long_poll_answers_as_soon_as_something_is_there(server: TelegramServer, bot: Bot) -> None:
    poll = asyncio.create_task(bot.get_updates(timeout=30))
    await server.until(lambda: server.updates.is_polled)
    server.user(7, "Ann", "ann").says("/start now @lunar_bot")
    [update] = await poll
    assert update.message is not None
    assert [entity.type for entity in update.message.entities] == ["bot_command", "mention"]
    assert update.message.from_user is not None
    assert update.message.from_user.username == "ann"


async def test_a_long_poll_ends_empty_after_its_timeout(server: TelegramServer, bot: Bot) -> None:
    assert await ids(bot, timeout=0.05) == []
    assert server.calls[-1].answered


async def test_updates_are_kept_for_a_day(server: TelegramServer, bot: Bot, clock: Clock) -> None:
    server.user(7).says("yesterday")
    clock.now += 23 * 3600
    server.user(7).says("today")
    assert len(await ids(bot)) == 2
    clock.now += 2 * 3600
    assert len(await ids(bot)) == 1


async def test_the_older_of_two_polls_gets_409(server: TelegramServer, bot: Bot) -> None:
    older = asyncio.create_task(bot.get_updates(timeout=30))
    await server.until(lambda: server.updates.is_polled)
    newer = asyncio.create_task(bot.get_updates(timeout=30))
    with pytest.raises(Conflict, match="make sure that only one bot instance is running"):
        await older
    server.user(7).says("for the newer one")
    assert len(await newer) == 1


async def test_the_poll_of_a_dead_client_loses_nothing(server: TelegramServer, bot: Bot) -> None:
    async with aiohttp.ClientSession() as client:
        dead = asyncio.create_task(client.get(f"{server.api_url}/bot{TOKEN}/getUpdates?timeout=30"))
        await server.until(lambda: server.updates.is_polled)
        dead.cancel()
        await asyncio.gather(dead, return_exceptions=True)
    server.user(7).says("still here")
    assert len(await ids(bot)) == 1


async def test_allowed_updates_choose_at_the_time_of_the_event(server: TelegramServer, bot: Bot) -> None:
    ann, group = server.user(7), server.group(GROUP)
    ann.joins(group)  # chat_member is off by default
    [update] = await bot.get_updates()
    assert update.message is not None
    assert update.message.new_chat_members
    assert (
        await ids(bot, offset=update.update_id + 1, allowed_updates=["chat_member", "edited_message"]) == []
    )
    ann.leaves(group)
    ann.edits(ann.says("not asked for"), "an edit")
    found = await bot.do_api_request("getupdates")
    assert [set(update) - {"update_id"} for update in found] == [{"chat_member"}, {"edited_message"}]
    assert await ids(bot, offset=found[-1]["update_id"] + 1, allowed_updates=[]) == []
    ann.says("the default again")
    assert len(await ids(bot)) == 1


async def test_a_poison_update_is_delivered_as_it_is(server: TelegramServer, bot: Bot) -> None:
    poison = server.push_raw({"message": {"message_id": "not a number", "chat": None}})
    server.user(7).says("after it")
    [first, second] = await bot.do_api_request("getupdates")
    assert first == {"update_id": poison.id, "message": {"message_id": "not a number", "chat": None}}
    assert second["message"]["text"] == "after it"


async def test_strict_pace_slows_a_client_that_asks_the_same_again(server: TelegramServer, bot: Bot) -> None:
    server.updates.strict_pace = True
    for _ in range(3):
        server.user(7).says("hello")
    assert len(await ids(bot)) == 3
    assert len(await ids(bot)) == 1


class Receiver:
    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[str | None, dict[str, object]]] = []
        self.statuses: list[int] = []  # of the next answers; then 200

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.headers.get("X-Telegram-Bot-Api-Secret-Token"), await request.json()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


async def test_a_webhook_gets_its_secret_and_is_tried_again_in_order(
    server: TelegramServer, bot: Bot, receiver: Receiver
) -> None:
    receiver.statuses = [500, 404, 200]
    ann = server.user(7)
    ann.says("one")
    ann.says("two")
    assert await bot.set_webhook(receiver.url, secret_token="s3cret", allowed_updates=["message"])
    await server.until(lambda: not server.updates.pending)
    assert {secret for secret, _ in receiver.got} == {"s3cret"}
    texts = [body["message"]["text"] for _, body in receiver.got]  # type: ignore[index] # a message's JSON
    assert texts == ["one", "one", "one", "two"]
    info = await bot.get_webhook_info()
    assert (info.url, info.pending_update_count) == (receiver.url, 0)
    assert info.last_error_message == "Wrong response from the webhook: 404 Not Found"


async def test_a_chat_whose_webhook_fails_does_not_hold_another(
    server: TelegramServer, bot: Bot, receiver: Receiver
) -> None:
    server.retry_pause = 60
    receiver.statuses = [500, 500]
    await bot.set_webhook(receiver.url)
    server.user(7).says("refused twice, then it waits")
    await server.until(lambda: server.updates.webhook and server.updates.webhook.tries == 2)
    server.user(8).says("at once")
    await server.until(lambda: len(server.updates.pending) == 1)
    assert receiver.got[-1][1]["message"]["text"] == "at once"  # type: ignore[index] # a message's JSON


async def test_polling_and_a_webhook_exclude_each_other(
    server: TelegramServer, bot: Bot, receiver: Receiver
) -> None:
    poll = asyncio.create_task(bot.get_updates(timeout=30))
    await server.until(lambda: server.updates.is_polled)
    receiver.statuses = [500] * 50
    await bot.set_webhook(receiver.url)
    with pytest.raises(Conflict, match="terminated by setWebhook"):
        await poll
    with pytest.raises(Conflict, match="while webhook is active"):
        await bot.get_updates()
    server.user(7).says("nobody takes it")
    assert await bot.delete_webhook()
    assert len(await ids(bot)) == 1
    assert await bot.delete_webhook(drop_pending_updates=True)
    assert await ids(bot) == []
    with pytest.raises(BadRequest, match="unallowed characters"):
        await bot.set_webhook(receiver.url, secret_token="no spaces")


async def test_a_server_that_ends_leaves_no_webhook_open(receiver: Receiver) -> None:
    """Two calls at once, a call that is broken off, and one that is carried out while the server ends."""
    receiver.statuses = [500] * 50
    made: list[Webhook] = []

    async def set_webhook() -> None:
        await server.set_webhook(receiver.url, "", drop=False)
        assert server.updates.webhook is not None
        made.append(server.updates.webhook)

    async with aiohttp.ClientSession() as client:
        async with TelegramServer(TOKEN, retry_pause=60) as server:
            server.user(7).says("nobody takes it")
            await set_webhook()
            await server.until(lambda: made[-1].tries)
            await asyncio.gather(set_webhook(), set_webhook())
            await server.until(lambda: made[-1].tries)
            broken_off = asyncio.create_task(set_webhook())
            await asyncio.sleep(0)
            broken_off.cancel()
            await asyncio.wait({broken_off})
            server.fail("setWebhook", Slow(0.02))
            url = f"{server.api_url}/bot{TOKEN}/setWebhook"
            late = asyncio.create_task(client.post(url, data={"url": receiver.url}))
            await server.until(lambda: server.calls)
        await asyncio.wait({late})
    last = server.updates.webhook
    assert len(made) == 3
    assert last is not None
    assert [webhook._session.closed for webhook in (*made, last)] == [True] * 4
