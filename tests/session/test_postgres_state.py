"""What nodes keep together beside the transcripts, and the work that one of them does for all."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from session import postgres_state
from session.postgres_database import Database
from session.postgres_schema import prepare
from session.postgres_state import Duty, State
from tests.fakes.postgres_server import PostgresServer, shared

SECONDS = 20.0


@pytest.fixture
def server() -> PostgresServer:
    return shared()


@asynccontextmanager
async def opened(url: str, label: str = "lunar test") -> AsyncIterator[Database]:
    database = Database(url, label, 2)
    await database.open()
    await prepare(database)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_state, "_BEAT", 0.1)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


async def test_a_state_is_exchanged_only_by_whoever_knows_it(server: PostgresServer) -> None:
    async with opened(server.database()) as database:
        state = State(database)
        assert await state.state("a") is None
        assert not await state.set_state("a", b"2", b"1")
        assert await state.set_state("a", b"\x00\xff", None)
        assert not await state.set_state("a", b"3", None)
        assert await state.state("a") == b"\x00\xff"
        assert await state.set_state("a", b"", b"\x00\xff")
        assert await state.state("a") == b""
        done = await asyncio.gather(*(state.set_state("a", b"%d" % n, b"") for n in range(8)))
        assert done.count(True) == 1


class Work:
    """Counts how many do it at the same time."""

    def __init__(self) -> None:
        self.doing: list[str] = []
        self.over = asyncio.Event()

    async def by(self, node: str) -> None:
        self.doing.append(node)
        try:
            await self.over.wait()
        finally:
            self.doing.remove(node)


async def test_one_node_does_the_work_and_the_others_know_which(server: PostgresServer) -> None:
    url = server.database()
    async with opened(url) as database:
        work = Work()
        duties = {node: Duty(database, node) for node in ("café", "b", "c")}
        tasks = {n: asyncio.create_task(duty.hold(lambda n=n: work.by(n))) for n, duty in duties.items()}
        await until(lambda: sum(duty.holder is not None for duty in duties.values()) == 2)
        [first] = work.doing
        assert {duty.holder for node, duty in duties.items() if node != first} == {first}
        tasks[first].cancel()
        await until(lambda: work.doing and work.doing != [first])
        [second] = work.doing
        await until(lambda: [d.holder for n, d in duties.items() if n not in (first, second)] == [second])
        name = url.rpartition("/")[2]
        server.sql(
            "select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database"
            f" where l.locktype = 'advisory' and l.granted and d.datname = '{name}'"
        )
        await until(lambda: work.doing != [second])  # it lost the lock, and so stopped
        await until(lambda: len(work.doing) == 1)
        work.over.set()
        await asyncio.wait([task for node, task in tasks.items() if node != first])
        assert not work.doing


ANOTHER = """
import asyncio, sys
from session import postgres_state
from session.postgres_database import Database
from session.postgres_state import Duty

async def main():
    database = Database(sys.argv[1], "other", 2)
    await database.open()
    async def work():
        print("at work", flush=True)
        await asyncio.Event().wait()
    await Duty(database, "other").hold(work)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_work_of_a_node_that_dies_is_taken_over(
    server: PostgresServer, how: signal.Signals
) -> None:
    url = server.database()
    async with opened(url) as database:
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ANOTHER, url, stdout=asyncio.subprocess.PIPE
        )
        assert other.stdout is not None
        try:
            assert await asyncio.wait_for(other.stdout.readline(), SECONDS) == b"at work\n"
            work, duty = Work(), Duty(database, "me")
            holding = asyncio.create_task(duty.hold(lambda: work.by("me")))
            await until(lambda: duty.holder == "other")
            os.kill(other.pid, how)
            began = asyncio.get_running_loop().time()
            await until(lambda: work.doing)
            print(f"taken over after {asyncio.get_running_loop().time() - began:.1f} s")
            assert duty.holder is None
            work.over.set()
            await holding
        finally:
            if other.returncode is None:
                other.kill()
            await other.wait()


async def test_a_database_that_goes_away_ends_the_work_and_brings_it_back(server: PostgresServer) -> None:
    own = PostgresServer().start()
    try:
        async with opened(own.database()) as database:
            work, duty = Work(), Duty(database, "me")
            holding = asyncio.create_task(duty.hold(lambda: work.by("me")))
            await until(lambda: work.doing)
            await asyncio.to_thread(own.stop, "immediate")
            await until(lambda: not work.doing)
            await asyncio.to_thread(own.start)
            await until(lambda: work.doing)
            work.over.set()
            await holding
    finally:
        await asyncio.to_thread(own.close)


async def test_what_the_work_raises_comes_out(server: PostgresServer) -> None:
    async def work() -> None:
        raise OSError("the work's own")

    async with opened(server.database()) as database:
        with pytest.raises(OSError, match="own"):
            await asyncio.wait_for(Duty(database, "me").hold(work), SECONDS)
