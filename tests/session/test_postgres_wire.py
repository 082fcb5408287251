"""What nodes say to each other, and what becomes of it where the connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path

import pytest

from session import postgres_wire
from session.errors import StorageError
from session.postgres_wire import Wire
from session.protocols import NOTICE_BYTES
from tests.fakes.postgres_server import PostgresServer, shared
from tests.session.postgres_nodes import Node, nodes, until
from tests.session.stores import HERE, note, user

Pair = tuple[Node, Node]


@pytest.fixture
def url() -> str:
    return shared().database()


@pytest.fixture
async def pair(url: str, tmp_path: Path) -> AsyncIterator[Pair]:
    async with nodes(url, tmp_path, "a", "b") as (a, b):
        yield a, b


def cut(url: str) -> None:
    """End all connections of a database."""
    name = url.rpartition("/")[2]
    shared().sql(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")


async def test_a_notice_reaches_whom_it_is_for(url: str, tmp_path: Path) -> None:
    async with nodes(url, tmp_path, "a", "b", "c", connections=1) as (a, b, c):
        a.store.notify(b.store.node, "for b")
        a.store.notify(None, "for all")
        b.store.notify(a.store.node, '{"text": "\\ud800"} for a')
        b.store.notify(b.store.node, "for myself")
        b.store.notify(987_654, "for nobody")
        await until(lambda: len(a.heard) + len(b.heard) + len(c.heard) == 4)
        assert a.heard == [(b.store.node, '{"text": "\\ud800"} for a')]
        assert b.heard == [(a.store.node, "for b"), (a.store.node, "for all")]
        assert c.heard == [(a.store.node, "for all")]


async def test_notices_come_in_order_and_share_statements(pair: Pair) -> None:
    a, b = pair
    for number in range(3_000):
        a.store.notify(None if number % 2 else b.store.node, str(number))
    await until(lambda: len(b.heard) == 3_000)
    assert b.heard == [(a.store.node, str(number)) for number in range(3_000)]


async def test_what_is_said_twice_is_heard_twice(pair: Pair) -> None:
    """Of equal notices in one statement the server passes on one; a reply repeats its words."""
    a, b = pair
    words = ["the", " cat", " and", " the", " cat", " the", " the"]
    for word in words:
        a.store.notify(b.store.node, word)
    await until(lambda: len(b.heard) >= len(words))
    assert [text for _, text in b.heard] == words


async def test_a_notice_has_its_bounds(pair: Pair) -> None:
    a, b = pair
    a.store.notify(None, "x" * NOTICE_BYTES)
    await until(lambda: b.heard)
    for bad in ("x" * (NOTICE_BYTES + 1), "ä", "\0"):
        with pytest.raises(ValueError, match="ASCII"):
            a.store.notify(None, bad)


async def test_too_many_notices_are_dropped_and_that_is_told(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_wire, "_WAITING", 100)
    a, b = pair
    for number in range(150):
        a.store.notify(None, str(number))
    await until(lambda: a.lost == 1)
    a.store.notify(None, "after")
    await until(lambda: b.heard and b.heard[-1][1] == "after")
    assert len(b.heard) < 151


async def test_connections_that_are_cut_are_made_anew(pair: Pair, url: str) -> None:
    a, b = pair
    before = [node.store.node for node in pair]
    await a.store.append(HERE, [user("m")])
    for count in (1, 2):
        cut(url)
        await until(lambda count=count: a.lost >= count and b.lost >= count)  # type: ignore[misc] # mypy does not infer a default of a lambda
        a.store.notify(b.store.node, f"{count}")
        await until(lambda count=count: (a.store.node, f"{count}") in b.heard)  # type: ignore[misc] # mypy does not infer a default of a lambda
    assert [node.store.node for node in pair] == before
    assert await a.store.append(HERE, [note("n")], leased=True)  # nobody was away for long


async def test_what_a_lost_connection_still_had_is_let_go(pair: Pair) -> None:
    """The library hands notices over in the loop's next round: by then the connection may be no more."""
    a, b = pair
    wire = a.store._wire
    old = wire._connection
    assert old is not None
    old.terminate()
    await until(lambda: a.lost)
    wire._receive(old, 1, "lunar_all", "1 notice late")
    b.store.notify(a.store.node, "after")
    await until(lambda: a.heard)
    assert a.heard == [(b.store.node, "after")]


async def test_everything_returns_when_the_server_does(tmp_path: Path) -> None:
    server = PostgresServer(durable=True).start()
    try:
        async with nodes(server.database(), tmp_path, "a", "b") as (a, b):
            stored = await a.store.append(HERE, [user("m")])
            heard = a.follow(HERE, stored[-1].cursor)
            for end in (server.stop, server.kill):
                lost = a.lost, b.lost
                await asyncio.to_thread(end)
                await until(lambda: a.store.fault and b.store.fault)
                assert "PostgreSQL at 127.0.0.1" in (a.store.fault or "")
                await a.store.probe()
                assert a.store.fault
                a.store.notify(None, "nobody can hear this")
                await asyncio.to_thread(server.start)
                await until(lambda lost=lost: a.lost > lost[0] and b.lost > lost[1])  # type: ignore[misc] # mypy does not infer a default of a lambda
                await a.store.probe()
                assert a.store.fault is None
                await b.store.append(HERE, [note(end.__name__)])
                await until(lambda: a.woken)
                await heard.following.catch_up()
                a.woken.clear()
            assert heard.texts == ["stop", "kill"]
            assert heard.broken == 0
            assert len(await a.store.nodes()) == 2
    finally:
        server.close()


class Slow:
    """A connection that knows when its node beat, and whose statements take five milliseconds."""

    def __init__(self) -> None:
        self.beats = 0
        self.sent = 0

    def is_closed(self) -> bool:
        return False

    def terminate(self) -> None:
        pass

    async def execute(self, statement: str, channels: list[str], texts: list[str]) -> None:
        await asyncio.sleep(0.005)
        self.sent += len(texts)

    async def fetchrow(self, *_: object) -> dict[str, object]:
        self.beats += 1
        return {"alive": True, "woken": None, "taken": None, "epochs": None}

    async def fetch(self, *_: object) -> list[object]:
        return []


class Promoted(Slow):
    """One to a server that has taken the place of another, and does not answer the first beat."""

    async def fetchval(self, *_: object) -> str:
        return "00000002"

    async def add_listener(self, *_: object) -> None:
        pass

    def add_termination_listener(self, _: object) -> None:
        pass

    def get_server_pid(self) -> int:
        return 1

    async def fetchrow(self, *_: object) -> dict[str, object]:
        if not self.beats:
            self.beats += 1
            raise StorageError("does not answer")
        return await super().fetchrow()


class Connects:
    """A database to which there is one connection."""

    def __init__(self, connection: Slow) -> None:
        self._connection = connection

    async def connect(self, *_: object, **__: object) -> Slow:
        return self._connection

    def mapped(self) -> AbstractContextManager[None]:
        return nullcontext()


@asynccontextmanager
async def running(wire: Wire) -> AsyncIterator[None]:
    task = asyncio.create_task(wire.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_node_that_always_has_something_to_say_beats_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_wire, "BEAT", 0.1)
    slow = Slow()
    wire = Wire(Connects(slow), "a")  # type: ignore[arg-type] # a stand-in for the database
    wire._connection = slow  # type: ignore[assignment] # a stand-in for a connection
    async with running(wire):
        said = 0
        while slow.beats < 10:
            wire.send(1, "notice", "x")
            said += 1
            assert said < 5_000, "no beat, for there was always something to say"
            await asyncio.sleep(0.002)
        await until(lambda: slow.sent == said)


async def test_another_history_is_told_though_the_first_beat_behind_it_fails() -> None:
    told: list[bool] = []
    wire = Wire(Connects(Promoted()), "a")  # type: ignore[arg-type] # a stand-in for the database
    wire._history = "00000001"
    wire.back = told.append
    async with running(wire):
        await until(lambda: told)
    assert told == [True]
