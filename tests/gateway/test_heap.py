"""Threads share the C library's heaps, where it is glibc."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.daemon import Daemon

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")

THREADS = """
import ctypes, sys, threading
from gateway import heap
if "share" in sys.argv:
    heap.share()
gate = threading.Barrier(12)
def work():
    gate.wait()
    kept = [bytes(1000 + n) for n in range(1000)]
    gate.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


FREED = """
import asyncio, os
from gateway import heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

kept = [bytes(3000) for _ in range(20_000)]
del kept[: len(kept) - 2_000]
kept.append(bytes(3000))
looks = iter([resident])

async def sleep(seconds):
    print(resident())
    if next(looks, None) is None:
        raise asyncio.CancelledError

heap.asyncio.sleep = sleep
try:
    asyncio.run(heap.keep_small())
except asyncio.CancelledError:
    pass
"""


def heaps(*arguments: str, **environment: str) -> int:
    """How many heaps a process with twelve threads at work had."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    told = subprocess.run(
        [sys.executable, "-c", THREADS, *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stderr.count("Arena ")


def test_twelve_threads_share_two_heaps() -> None:
    assert heaps() > 2
    assert heaps("share") == 2


def test_the_operator_may_say_how_many() -> None:
    assert heaps("share", MALLOC_ARENA_MAX="4") == 4


def test_what_is_free_is_given_back() -> None:
    told = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    before, after = map(int, told.stdout.split())
    assert after < before - 30  # MiB, of 54 that were freed before what was kept


async def test_the_gateway_does_it_again_and_again(folder: Path) -> None:
    async with Daemon(folder / "d", module="tests.gateway.thrifty") as daemon:
        for _ in range(2):
            await daemon.logged("given back", since=len(daemon.log), kept=0)
