"""Threads share the C library's heaps, where it is glibc."""

import os
import platform
import subprocess
import sys

import pytest

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
