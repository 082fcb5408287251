"""The loop around getUpdates: what it confirms, and what it does when it gets no proper answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from telegram import Bot

from channels.telegram import polling, reach
from channels.telegram.polling import Poller, PollRequest
from channels.telegram.reach import DEAF, GRACE, Reach
from tests.channels.telegram.stage import Time, until
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
    Trickle,
    Truncated,
    conflict,
    unauthorized,
)


class Polled:
    """A poller, and what it was given. `ready` counts; `refused` says which updates are not done with."""

    def __init__(self, server: TelegramServer, bot: Bot, time: Time) -> None:
        self.server = server
        self.time = time
        self.reach = Reach(server.token, time, time.sleep)
        self.request = PollRequest()
        self.batches: list[list[Any]] = []
        self.done: list[Any] = []
        self.refused: Callable[[Any], bool] = lambda _: False
        self.readied = 0
        root = f"{server.api_url}/bot{server.token}"
        self.poller = Poller(
            self.request, root, self.take, self.reach, bot.delete_webhook, long_poll=0.4, margin=0.3
        )

    async def take(self, updates: Sequence[Any]) -> list[bool]:
        self.batches.append(list(updates))
        answers = [not self.refused(update) for update in updates]
        self.done += [update for update, answer in zip(updates, answers, strict=True) if answer]
        return answers

    def ready(self) -> None:
        self.readied += 1

    @property
    def texts(self) -> list[str]:
        return [update["message"]["text"] for update in self.done if "message" in update]

    async def until(self, condition: Callable[[], object]) -> None:
        await until(self.server, self.time, condition)

    def offsets(self) -> list[int | None]:
        return [call.params.get("offset") for call in self.server.calls_of("getUpdates")]


@pytest.fixture
async def polled(server: TelegramServer, bot: Bot, time: Time) -> AsyncIterator[Polled]:
    polled = Polled(server, bot, time)
    task = asyncio.create_task(polled.poller.run(polled.ready))
    yield polled
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await polled.request.shutdown()


async def test_it_is_ready_after_the_first_answer_and_asks_on(server: TelegramServer, polled: Polled) -> None:
    await polled.until(lambda: server.updates.is_polled)
    assert polled.readied == 1
    assert [call.params["timeout"] for call in server.calls_of("getUpdates")] == [0, 0.4]
    server.user(7).says("Hello")
    await polled.until(lambda: polled.texts == ["Hello"])
    assert server.calls[-1].params["allowed_updates"] == ["message", "edited_message", "callback_query"]
    assert polled.reach.fault is None


async def test_what_was_sent_while_nobody_polled_comes_first(
    server: TelegramServer, bot: Bot, time: Time
) -> None:
    for number in range(250):
        server.user(7).says(str(number))
    polled = Polled(server, bot, time)
    task = asyncio.create_task(polled.poller.run(polled.ready))
    await polled.until(lambda: not server.updates.pending)
    assert polled.texts == [str(number) for number in range(250)]
    assert polled.offsets()[0] is None
    assert [len(batch) for batch in polled.batches] == [100, 100, 50]
    assert not any("drop_pending_updates" in call.params for call in server.calls)
    task.cancel()
    await asyncio.wait({task})
    await polled.request.shutdown()


async def test_the_offset_stops_before_what_is_not_stored(server: TelegramServer, polled: Polled) -> None:
    polled.refused = lambda update: update["message"]["text"] == "two"
    await polled.until(lambda: server.updates.is_polled)
    first = server.updates.next_id
    for text in ("one", "two", "three"):
        server.push_raw({"message": {"text": text}})
    await polled.until(lambda: first + 1 in polled.offsets())
    assert first + 2 not in polled.offsets()
    assert [update.body["message"]["text"] for update in server.updates.pending] == ["two", "three"]
    polled.refused = lambda _: False
    await polled.until(lambda: not server.updates.pending)
    assert polled.texts[-2:] == ["two", "three"]


async def test_no_offset_outlives_its_batch(server: TelegramServer, polled: Polled) -> None:
    server.user(7).says("old")
    await polled.until(lambda: polled.texts == ["old"] and not server.updates.pending)
    assert polled.offsets()[-1] is not None
    await polled.until(lambda: polled.offsets()[-1] is None)


@pytest.mark.parametrize("first", [1, 1_000, 899_999_999])
async def test_the_numbering_may_begin_anew_anywhere(
    server: TelegramServer, polled: Polled, first: int
) -> None:
    server.user(7).says("old")
    await polled.until(lambda: polled.texts == ["old"] and not server.updates.pending)
    server.restart_update_ids(first)
    for text in ("new", "newer"):
        server.user(7).says(text)
        await polled.until(lambda: not server.updates.pending)
    assert polled.texts == ["old", "new", "newer"]


async def test_an_update_without_a_number_does_not_make_it_spin(
    server: TelegramServer, polled: Polled
) -> None:
    await polled.until(lambda: server.updates.is_polled)
    server.push_raw({"update_id": "none"})
    await polled.until(lambda: len(polled.batches) == 2)
    assert polled.time.now >= 1_800_000_001


FAULTS = [
    Reset(),
    AnswerLost(),
    Html(502),
    Html(200),
    Html(404),
    Refuse(500, "Internal Server Error"),
    Refuse(400, "Bad Request: what?"),
    Refuse(403, "Forbidden"),
    TooMany(3),
    Garbage(),
    Garbage(b""),
    Garbage(b"[]"),
    Garbage(b"null"),
    Garbage(b'{"ok":true}'),
    Garbage(b'{"ok":true,"result":{}}'),
    Garbage(b'{"ok":true,"result":null}'),
    Garbage(b"[" * 100_000),
    Truncated(),
    Trickle(),
    unauthorized(),
    conflict(),
    Refuse(404, "Not Found"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
async def test_it_recovers(server: TelegramServer, polled: Polled, fault: Fault) -> None:
    await polled.until(lambda: server.updates.is_polled)
    server.fail("getUpdates", fault, times=3)
    server.user(7).says("first")
    server.user(8).says("second")
    await polled.until(lambda: not server.updates.pending)
    assert sorted(set(polled.texts)) == ["first", "second"]
    await polled.until(lambda: polled.reach.fault is None)


async def test_a_poll_that_hangs_is_given_up(server: TelegramServer, bot: Bot, time: Time) -> None:
    polled = Polled(server, bot, time)
    server.fail("getUpdates", Hang())
    server.user(7).says("Hello")
    task = asyncio.create_task(polled.poller.run(polled.ready))
    await polled.until(lambda: polled.texts == ["Hello"])
    task.cancel()
    await asyncio.wait({task})
    await polled.request.shutdown()


async def test_an_answer_that_trickles_for_ever_is_given_up(
    server: TelegramServer, bot: Bot, time: Time
) -> None:
    polled = Polled(server, bot, time)
    server.fail("getUpdates", Trickle(size=1, pause=0.1))
    server.user(7).says("Hello")
    task = asyncio.create_task(polled.poller.run(polled.ready))
    await polled.until(lambda: polled.texts == ["Hello"])
    task.cancel()
    await asyncio.wait({task})
    await polled.request.shutdown()


async def test_pauses_grow_and_are_never_the_same(server: TelegramServer, polled: Polled) -> None:
    await polled.until(lambda: server.updates.is_polled)
    server.fail("getUpdates", Html(502), times=10)
    server.user(7).says("Hello")  # ends the long poll
    began = polled.time.now
    await polled.until(lambda: polled.time.now - began > 100)
    times = [call.at for call in server.calls_of("getUpdates")][-6:]
    pauses = [after - before for before, after in pairwise(times)]
    assert max(pauses) > 15
    assert max(pauses) <= 20 * 1.25
    assert len(set(pauses)) == len(pauses)


def test_after_every_fault_of_the_network_it_hears_again_within_35_s() -> None:
    """A half-open connection was noticed after 45 s; after a long outage, the next try came after 37 s."""
    assert polling.LONG_POLL + polling._MARGIN + 1.25 * reach._FIRST <= 35
    assert 1.25 * reach._LONGEST + 10 <= 35  # with one attempt to connect that began too early


async def test_a_flood_wait_is_kept(server: TelegramServer, polled: Polled) -> None:
    await polled.until(lambda: server.updates.is_polled)
    server.fail("getUpdates", TooMany(40))
    server.user(7).says("Hello")
    before = polled.time.now
    await polled.until(lambda: not server.updates.pending)
    server.user(7).says("Hello")
    await polled.until(lambda: not server.updates.pending)
    assert 40 <= polled.time.now - before <= 42


@pytest.mark.parametrize(("status", "reason"), [(401, "Unauthorized"), (404, "Not Found")])
async def test_a_bad_token_is_named_and_tried_each_minute(
    server: TelegramServer, polled: Polled, status: int, reason: str
) -> None:
    await polled.until(lambda: server.updates.is_polled)
    refusing = server.fail("getUpdates", Refuse(status, reason), times=None)
    server.user(7).says("ends the long poll")
    await polled.until(lambda: polled.reach.fault)
    fault = polled.reach.fault
    assert fault is not None
    assert reason in fault
    assert "TELEGRAM_BOT_TOKEN" in fault
    await polled.until(lambda: refusing.happened == 4)
    times = [call.at for call in server.calls_of("getUpdates")][-4:]
    assert [after - before for before, after in pairwise(times)] == [60.0] * 3
    server.heal()
    await polled.until(lambda: polled.reach.fault is None)


async def test_another_poller_is_named_only_after_a_while(server: TelegramServer, polled: Polled) -> None:
    began = polled.time.now
    server.fail("getUpdates", conflict(), times=None)
    await polled.until(lambda: polled.time.now - began > GRACE / 2)
    assert polled.reach.fault is None
    await polled.until(lambda: polled.reach.fault)
    assert polled.time.now - began > GRACE
    assert "Another program" in (polled.reach.fault or "")
    server.heal()
    await polled.until(lambda: polled.reach.fault is None)


async def test_a_webhook_that_was_left_behind_is_removed(
    server: TelegramServer, polled: Polled, bot: Bot
) -> None:
    await polled.until(lambda: server.updates.is_polled)
    await bot.set_webhook("http://127.0.0.1:9/nobody")
    server.user(7).says("Hello")
    await polled.until(lambda: polled.texts == ["Hello"])
    assert server.updates.webhook is None


async def test_silence_is_deafness(server: TelegramServer, polled: Polled) -> None:
    await polled.until(lambda: server.updates.is_polled)
    server.fail("getUpdates", Html(503), times=None)
    server.user(7).says("ends the long poll")
    before = polled.time.now
    await polled.until(lambda: polled.reach.fault)
    assert polled.time.now - before > DEAF
    assert "has not answered for" in (polled.reach.fault or "")


async def test_the_token_is_in_no_error(server: TelegramServer, time: Time) -> None:
    reach = Reach(server.token, time, time.sleep)
    for error in (
        ValueError(f"{server.api_url}/bot{server.token}/getUpdates failed"),
        ValueError("POST https://api.telegram.org/bot987654:AA-of_another_bot_that_we_do_not_know"),
    ):
        assert "AA" not in reach.clean(error)
