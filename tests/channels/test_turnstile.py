"""Many at once: in which order, and how many in one turn of the loop."""

import asyncio
from itertools import pairwise

from channels.turnstile import Turnstile


async def test_a_few_pass_in_each_turn_and_in_order() -> None:
    turnstile, passed = Turnstile(), []

    async def pass_through(number: int) -> None:
        await turnstile.passed()
        passed.append(number)

    for _ in range(2):  # it opens again when it was empty
        passed.clear()
        tasks = [asyncio.create_task(pass_through(number)) for number in range(40)]
        counts = []
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            counts.append(len(passed))
        assert passed == list(range(40))
        assert max(after - before for before, after in pairwise([0, *counts])) == 12


async def test_who_is_cancelled_takes_no_place() -> None:
    turnstile = Turnstile()
    tasks = [asyncio.create_task(turnstile.passed()) for _ in range(40)]
    await asyncio.sleep(0)
    for task in tasks[:39]:
        task.cancel()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True] * 39 + [False]
    await turnstile.passed()
