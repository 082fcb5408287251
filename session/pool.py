"""The threads that read and write files, and how short writes share them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Work(NamedTuple):
    do: Callable[[], Any]
    done: asyncio.Future[Any]


class _Outcome(NamedTuple):
    done: asyncio.Future[Any]
    result: Any
    error: BaseException | None


def bare(error: OSError) -> OSError:
    """The same without the frames that it came through: they hold whoever is told of it, a cycle each.

    A full disk refuses a hundred appends in a second, for minutes; what it says tells enough.
    """
    part: BaseException | None = error
    while part is not None:
        part.__traceback__, part = None, part.__context__
    return error


class Pool:
    """So many threads. To hand one some work and to get its result costs more than to write a line."""

    def __init__(self, threads: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, name)
        # For what is done `together`: half of them are faster at it than all, which only wait for each other.
        self._sharing = self._free = max(1, threads // 2)
        self._waiting: list[_Work] = []  # for one of these

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Do it in a thread, by itself."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    def together(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do something short in one of half of the threads, where need be several of it one by one."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Work(work, done))
        if len(self._waiting) == 1:
            loop.call_soon(self._hand_out, loop)  # when all is there that this turn of the loop brings
        return done

    def _hand_out(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and self._free:
            share = -(-len(self._waiting) // self._sharing)
            some, self._waiting = self._waiting[:share], self._waiting[share:]
            try:
                self._executor.submit(self._do, some, loop)
            except RuntimeError as error:  # it is closed
                for work in some:
                    work.done.set_exception(error)
            else:
                self._free -= 1

    def _do(self, some: list[_Work], loop: asyncio.AbstractEventLoop) -> None:
        outcomes: list[_Outcome] = []
        for do, done in some:
            try:
                outcomes.append(_Outcome(done, do(), None))
            except OSError as error:
                outcomes.append(_Outcome(done, None, bare(error)))
            except BaseException as error:  # whoever waits for it raises it
                outcomes.append(_Outcome(done, None, error))
        loop.call_soon_threadsafe(self._ended, outcomes, loop)

    def _ended(self, outcomes: list[_Outcome], loop: asyncio.AbstractEventLoop) -> None:
        self._free += 1
        for done, result, error in outcomes:
            if done.done():
                continue  # nobody waits for it any more
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)
        self._hand_out(loop)

    async def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        await asyncio.to_thread(self._executor.shutdown)
