"""Threads for files: short work shares them, and each piece has its own outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest

from session.pool import Pool

TIMEOUT = 20.0


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(6, "test")
    yield pool
    await pool.close()


async def test_more_work_than_threads_is_all_done_in_order_of_the_asking(pool: Pool) -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return 2 * number

    asked = [pool.together(partial(work, number)) for number in range(100)]
    async with asyncio.timeout(TIMEOUT):
        assert await asyncio.gather(*asked) == [2 * number for number in range(100)]
    assert sorted(done) == list(range(100))


async def test_what_comes_at_once_is_shared_out_among_half_of_the_threads(pool: Pool) -> None:
    all_there = threading.Barrier(3)
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*(pool.together(partial(all_there.wait, TIMEOUT)) for _ in range(6)))


async def test_one_that_fails_is_alone_with_it(pool: Pool) -> None:
    def work(number: int) -> int:
        if number % 7 == 3:
            raise OSError(number, "refused")
        if number == 50:
            raise SystemExit(number)
        return number

    asked = [pool.together(partial(work, number)) for number in range(100)]
    async with asyncio.timeout(TIMEOUT):
        found = await asyncio.gather(*asked, return_exceptions=True)
    for number, outcome in enumerate(found):
        if number == 50:
            assert isinstance(outcome, SystemExit)
        elif number % 7 == 3:
            assert isinstance(outcome, OSError)
            assert outcome.errno == number
        else:
            assert outcome == number
    assert await pool.together(lambda: "and on") == "and on"


async def test_what_nobody_waits_for_any_more_is_done_and_harms_nobody(pool: Pool) -> None:
    done: list[int] = []
    asked = [pool.together(partial(done.append, number)) for number in range(10)]
    for one in asked[::2]:
        one.cancel()
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*asked[1::2])
    assert sorted(done) == list(range(10))


async def test_work_that_hangs_holds_up_what_shares_its_thread_and_nothing_else(pool: Pool) -> None:
    go_on = threading.Event()
    hanging = pool.together(go_on.wait)
    await asyncio.sleep(0)  # it is handed out before the others come
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*(pool.together(lambda: None) for _ in range(50)))
        assert await pool.run(threading.active_count)
        assert not hanging.done()
        go_on.set()
        await hanging


async def test_the_end_waits_for_what_is_under_way() -> None:
    pool = Pool(2, "test")
    asked = [pool.together(lambda: "done") for _ in range(5)]
    await asyncio.gather(*asked)
    await pool.close()
    with pytest.raises(RuntimeError):
        await pool.run(lambda: None)
    with pytest.raises(RuntimeError):
        await pool.together(lambda: None)
