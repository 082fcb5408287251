"""Loading beside the event loop: out of the collector's way, and never for longer than it takes."""

import asyncio
import gc
import threading

import pytest

from gateway.loading import beside


async def test_it_runs_in_a_thread_while_nothing_is_collected() -> None:
    def work() -> tuple[int, bool]:
        return threading.get_ident(), gc.isenabled()

    thread, collected = await beside(work)
    assert thread != threading.get_ident()
    assert not collected
    assert gc.isenabled()


async def test_what_was_made_is_left_out_of_later_passes() -> None:
    before = gc.get_freeze_count()
    made = await beside(lambda: [[] for _ in range(1000)])
    assert gc.get_freeze_count() >= before + len(made)


async def test_a_failure_is_told_and_collecting_goes_on() -> None:
    def work() -> None:
        raise ImportError("no such library")

    with pytest.raises(ImportError, match="no such library"):
        await asyncio.wait_for(beside(work), 10)
    assert gc.isenabled()
