"""The floor of a turn: the official client's calls and nothing else.

`python -m benchmarks.floor_calls URL` is a process that makes as many calls as each line of its input says
(`CALLS PARALLEL`), and prints the seconds that they took: of the wall clock, and of the CPU.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.process import running, told


class Cost(NamedTuple):
    """Seconds of one call, where others are made at the same time: of the wall clock, and of the CPU."""

    wall: float
    cpu: float


@contextmanager
def bare_calls(url: str) -> Iterator[Callable[[int, int], Cost]]:
    """A function that makes so many calls, so many of them at a time, in a process of their own."""
    with running(["-m", "benchmarks.floor_calls", url]) as process:

        def make(calls: int, parallel: int) -> Cost:
            assert process.stdin is not None
            print(calls, parallel, file=process.stdin, flush=True)
            wall, cpu = map(float, told(process).split())
            return Cost(wall / calls, cpu / calls)

        yield make


async def _serve(url: str) -> None:
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

    async def asker(count: int) -> None:
        for _ in range(count):
            stream = await client.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            async for _ in stream:
                pass

    for line in sys.stdin:
        calls, parallel = map(int, line.split())
        used, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(asker(calls // parallel) for _ in range(parallel)))
        print(time.perf_counter() - began, time.process_time() - used, flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
