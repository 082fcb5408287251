"""When the next call may be made."""

import asyncio

import pytest

from channels.telegram.errors import Flooded
from channels.telegram.pace import Pace, Window
from tests.channels.telegram.stage import Time

ANY = float("inf")


async def turns(pace: Pace, time: Time, chat: int, count: int) -> list[float]:
    """When each of so many calls, asked for at once, may be made, in seconds from now."""
    begin = time()
    got: list[float] = []

    async def one() -> None:
        await pace.turn(chat, ANY)
        got.append(round(time() - begin, 3))

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
        while len(got) < count:
            for _ in range(5):
                await asyncio.sleep(0)
            time.go_to_next()
    return got


def test_a_window_gives_its_places_in_order() -> None:
    window = Window(2, 10.0)
    assert [window.book(now) for now in (0, 1, 1, 1, 1, 50)] == [0, 1, 10, 11, 20, 50]
    assert (window.quiet(59.0), window.quiet(60.0)) == (False, True)


async def test_a_private_chat_has_a_short_burst_and_then_one_a_second_on_average(time: Time) -> None:
    assert await turns(Pace(time, time.sleep), time, 7, 7) == [0, 0, 0, 3, 3, 3, 6]


async def test_a_group_has_twenty_a_minute(time: Time) -> None:
    got = await turns(Pace(time, time.sleep), time, -100, 41)
    assert got == [0] * 20 + [60] * 20 + [120]


async def test_all_chats_together_have_thirty_a_second(time: Time) -> None:
    pace = Pace(time, time.sleep)
    for chat in range(1, 31):
        await pace.turn(chat, ANY)
    assert await turns(pace, time, 31, 1) == [1]


async def test_a_flood_wait_holds_its_chat_and_no_other(time: Time) -> None:
    pace = Pace(time, time.sleep)
    pace.hold(7, 60)
    assert (pace.held(7), pace.held(8)) == (True, False)
    await pace.turn(8, ANY)
    with pytest.raises(Flooded, match="60 seconds"):
        await pace.turn(7, 30)
    assert await turns(pace, time, 7, 4) == [60, 60, 60, 63]


async def test_a_flood_wait_that_comes_while_a_call_waits_for_its_place_holds_it_too(time: Time) -> None:
    pace = Pace(time, time.sleep)
    for _ in range(3):
        await pace.turn(7, ANY)
    fourth = asyncio.create_task(pace.turn(7, ANY))
    await asyncio.sleep(0)
    pace.hold(7, 60)
    time.go_on(59)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not fourth.done()
    time.go_on(1)
    await fourth


async def test_after_a_flood_wait_edits_are_rarer_for_a_while(time: Time) -> None:
    pace = Pace(time, time.sleep)
    assert (pace.between_edits(7), pace.between_edits(-100)) == (1.0, 3.0)
    for _ in range(10):
        pace.hold(7, 1)
    assert pace.between_edits(7) == 16.0
    assert pace.between_edits(8) == 1.0
    for _ in range(20):
        pace.edited(7)
    assert pace.between_edits(7) == 1.0


async def test_quiet_chats_are_forgotten(time: Time) -> None:
    pace = Pace(time, time.sleep)
    for chat in range(1, 3_001):
        time.go_on(1)
        await pace.turn(chat, ANY)
    assert len(pace._places) <= 1_000
