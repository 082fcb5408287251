"""One node runs a session's turns, and another one goes on where that one died or left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session import postgres_wire
from session.errors import LeaseLost
from session.events import Assistant, Event, System, ToolCall, ToolResult
from session.ids import SessionId
from tests.fakes.postgres_server import PostgresServer, shared
from tests.session.postgres_nodes import Node, nodes, until
from tests.session.stores import HERE, THERE, note, said, session, user

Trio = tuple[Node, Node, Node]
OF_A_TURN: list[list[Event]] = [
    [System(name="started", turn="t", messages=("m",), attempt=1)],
    [
        Assistant(content="on the way", turn="t", finish="tool_calls"),
        ToolCall(name="x", call_id="c", turn="t"),
    ],
    [ToolResult(name="x", result="r", call_id="c", ok=True, turn="t")],
    [Assistant(content="answer", turn="t", answers=("m",), finish="stop")],
    [System(name="turn_failed", turn="t", answers=("m",), content="why")],
    [System(name="sent", turn="t", part=0, message_id=1, chat="1"), System(name="delivered", turn="t")],
    [System(name="summary", covers="t", content="all")],
]


@pytest.fixture
def url() -> str:
    return shared().database()


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaths are noticed sooner."""
    monkeypatch.setattr(postgres_wire, "BEAT", 0.2)
    monkeypatch.setattr(postgres_wire, "LATE", "3 seconds")


@pytest.fixture
def no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first one, and those that are asked for."""
    monkeypatch.setattr(postgres_wire, "BEAT", 3600.0)


@pytest.fixture
async def trio(url: str, tmp_path: Path) -> AsyncIterator[Trio]:
    async with nodes(url, tmp_path, "a", "b", "c", connections=2) as (a, b, c):
        yield a, b, c


def sql(url: str, statement: str) -> str:
    return shared().sql(statement, url.rpartition("/")[2])


def stop_beating(node: Node) -> None:
    """As a process that is stopped: nothing is heard of it, and it knows nothing of that."""
    assert node.store._running is not None
    node.store._running.cancel()


def beat_again(node: Node) -> None:
    node.store._running = asyncio.create_task(node.store._wire.run())


# -- taking ----------------------------------------------------------------------------------------


async def test_one_node_has_it_and_the_others_have_not(trio: Trio) -> None:
    a, b, c = trio
    assert not await a.store.claim(HERE)  # there is nothing to run
    await a.store.append(HERE, [user("m")])
    assert a.taken == [HERE]
    assert [await node.store.claim(HERE) for node in trio] == [True, False, False]
    assert [node.store.holds(HERE) for node in trio] == [True, False, False]
    assert [await node.store.owner(HERE) for node in trio] == [a.store.node] * 3
    assert await b.store.append(HERE, [user("m2")])
    assert [await node.store.claim(HERE) for node in (c, b, a)] == [False, False, True]
    assert (b.taken, c.taken) == ([], [])


async def test_of_twenty_that_want_it_one_gets_it(url: str, tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(20)]
    async with nodes(url, tmp_path, *names, connections=1) as all_of_them:
        await all_of_them[0].store.append(HERE, [user("m")])
        for _ in range(5):
            holder = next(node for node in all_of_them if node.store.holds(HERE))
            await holder.store.release(HERE)
            won = await asyncio.gather(*(node.store.claim(HERE) for node in all_of_them))
            assert won.count(True) == 1
            told = [node.store.append(HERE, [note("x")], leased=True) for node in all_of_them]
            answers = await asyncio.gather(*told, return_exceptions=True)
            assert [isinstance(answer, list) for answer in answers] == won
            assert all(isinstance(answer, list | LeaseLost) for answer in answers)


async def test_of_twenty_that_write_into_a_new_session_one_gets_it(url: str, tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(20)]
    async with nodes(url, tmp_path, *names, connections=1) as all_of_them:
        await asyncio.gather(
            *(node.store.append(HERE, [user(node.store.name or "")]) for node in all_of_them)
        )
        assert [node.store.holds(HERE) for node in all_of_them].count(True) == 1
        assert len(await all_of_them[0].store.after(HERE, None, 99)) == 21


async def test_who_claims_has_heard_of_everything(trio: Trio) -> None:
    a, b, _ = trio
    await a.store.append(HERE, [user("m1")])
    heard = b.follow(HERE)
    await a.store.append(HERE, [user("m2")])
    await a.store.release(HERE)
    assert await b.store.claim(HERE)
    assert heard.texts == ["text of m1", "text of m2"]


async def test_a_foreign_message_wakes_the_owner_alone(trio: Trio) -> None:
    a, b, c = trio
    await a.store.append(HERE, [user("m1")])
    await b.store.append(HERE, [user("m2")])
    await until(lambda: a.woken)
    assert (a.woken, b.woken, c.woken) == ([HERE], [], [])


async def test_a_wake_that_is_lost_comes_with_a_beat(beats: None, trio: Trio) -> None:
    """The node that stored a message may die before it tells the owner."""
    a, b, _ = trio
    b.store._desks.wrote = lambda session, owner: None
    await a.store.append(HERE, [user("m1")])
    await b.store.append(HERE, [user("m2")])
    await until(lambda: a.woken)
    assert set(a.woken) == {HERE}


# -- giving back -----------------------------------------------------------------------------------


async def test_what_is_settled_is_nobodys(trio: Trio, url: str) -> None:
    a, b, _ = trio
    await a.store.append(HERE, [user("m1")])
    await a.store.append(HERE, [note("answer")], leased=True)
    await a.store.settle(HERE)
    assert not a.store.holds(HERE)
    assert sql(url, "select owner is null, open from lunar.session") == "t|f"
    with pytest.raises(LeaseLost):
        await a.store.append(HERE, [note("late")], leased=True)
    assert await b.store.claim(HERE)
    await a.store.append(HERE, [user("m2")])
    assert sql(url, "select open from lunar.session") == "t"


async def test_nothing_is_settled_over_a_message_that_came(trio: Trio, url: str) -> None:
    a, b, _ = trio
    records = await a.store.append(HERE, [user("m1")])
    heard = a.follow(HERE, records[-1].cursor)
    await b.store.append(HERE, [user("m2")])
    await a.store.settle(HERE)
    assert a.store.holds(HERE)
    assert sql(url, "select open from lunar.session") == "t"
    await heard.following.catch_up()
    await a.store.settle(HERE)
    assert sql(url, "select owner is null, open from lunar.session") == "t|f"


async def test_a_message_while_its_session_is_settled_is_not_lost(trio: Trio, url: str) -> None:
    a, _, _ = trio
    for number in range(30):
        await a.store.append(HERE, [note("answer")])
        settling = asyncio.create_task(a.store.settle(HERE))
        await asyncio.sleep(0)
        await asyncio.gather(settling, a.store.append(HERE, [user(f"m{number}")]))
        assert sql(url, "select open from lunar.session") == "t"
        assert sql(url, f"select owner = {a.store.node} from lunar.session") == "t"
        assert await a.store.claim(HERE)
        assert await a.store.append(HERE, [note("answer")], leased=True)


async def test_what_is_released_is_for_others(beats: None, trio: Trio) -> None:
    a, b, _ = trio
    await a.store.append(HERE, [user("m1")])
    await a.store.release(HERE)
    assert not a.store.holds(HERE)
    b.room = 5
    await until(lambda: b.woken == [HERE])
    assert b.taken == [HERE]
    assert b.store.holds(HERE)


async def test_who_leaves_hands_everything_over_at_once(no_beats: None, trio: Trio) -> None:
    a, b, c = trio
    both = {session(number) for number in range(10)}
    await asyncio.gather(*(a.store.append(of, [user("m")]) for of in both))
    b.room = c.room = 10
    await a.store.close()
    await until(lambda: {*b.woken, *c.woken} == both)
    assert len(b.woken) + len(c.woken) == 10
    for node in (b, c):
        assert node.taken == node.woken
        for of in node.woken:
            assert await node.store.append(of, [note("answer")], leased=True)
    a.store._running = None  # it is closed


async def test_who_is_closing_takes_nothing(trio: Trio, url: str) -> None:
    a, _, _ = trio
    await a.store.append(HERE, [user("m")])
    await a.store.release(HERE)
    a.store._desks.closing = True
    assert not await a.store.claim(HERE)
    await a.store.append(HERE, [user("m2")])
    assert sql(url, "select owner is null, open from lunar.session") == "t|t"


# -- dying -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", OF_A_TURN, ids=lambda batch: getattr(batch[-1], "name", "assistant"))
async def test_a_stale_epoch_writes_nothing(trio: Trio, url: str, batch: list[Event]) -> None:
    a, b, _ = trio
    await a.store.append(HERE, [user("m")])
    sql(url, f"update lunar.node set dead = true where id = {a.store.node}")
    assert await b.store.claim(HERE)
    before = await b.store.after(HERE, None, 99)
    with pytest.raises(LeaseLost):
        await a.store.append(HERE, batch, leased=True)
    assert a.deposed == [HERE]
    assert await b.store.after(HERE, None, 99) == before
    assert await b.store.append(HERE, batch, leased=True)


async def test_a_stale_epoch_keeps_no_message_out(trio: Trio, url: str) -> None:
    """What came together is stored together; of that, what needs no lease is stored all the same."""
    a, b, _ = trio
    await a.store.append(HERE, [user("m")])
    sql(url, f"update lunar.node set dead = true where id = {a.store.node}")
    assert await b.store.claim(HERE)
    many = [a.store.append(HERE, [note(str(number))], leased=number % 2 == 0) for number in range(6)]
    told = await asyncio.gather(*many, return_exceptions=True)
    assert [type(one) for one in told] == [LeaseLost, list] * 3
    assert [one.content for one in said(await b.store.after(HERE, None, 9))[1:]] == ["1", "3", "5"]  # type: ignore[union-attr] # all of them are notes


async def test_a_lease_that_comes_back_has_another_number(trio: Trio, url: str) -> None:
    """A to B to A: what A sent the first time is refused, though A has it again."""
    a, b, _ = trio
    await a.store.append(HERE, [user("m")])
    old = a.store._leases.desk(HERE).epoch
    await a.store.release(HERE)
    a.store._leases.desk(HERE).epoch = old  # as if it did not know
    with pytest.raises(LeaseLost):
        await a.store.append(HERE, [note("n")], leased=True)
    assert await b.store.claim(HERE)
    await b.store.release(HERE)
    assert await a.store.claim(HERE)
    assert a.store._leases.desk(HERE).epoch != old
    a.store._leases.desk(HERE).epoch = old
    with pytest.raises(LeaseLost):
        await a.store.append(HERE, [note("n")], leased=True)


async def test_a_lease_that_was_lost_unheard_and_taken_again_is_begun_anew(
    beats: None, trio: Trio, url: str
) -> None:
    """Another node had it meanwhile: what was begun here under the old number is over."""
    a, _, _ = trio
    await a.store.append(HERE, [user("m")])
    sql(url, "update lunar.session set owner = null, epoch = nextval('lunar.epoch')")
    a.room = 9
    await until(lambda: len(a.taken) == 2)
    assert a.deposed == [HERE]
    await until(lambda: a.woken == [HERE])
    assert await a.store.append(HERE, [note("n")], leased=True)


@pytest.mark.parametrize("how", ["append", "claim"])
async def test_a_lease_that_was_lost_unheard_and_is_taken_by_a_statement_is_begun_anew(
    no_beats: None, url: str, tmp_path: Path, how: str
) -> None:
    async with nodes(url, tmp_path, "a") as [a]:
        await a.store.append(HERE, [user("m")])
        sql(url, "update lunar.session set owner = null")
        if how == "append":
            await a.store.append(HERE, [note("n")])
        else:
            await a.store._leases.claim(HERE)
        await until(lambda: a.deposed == [HERE])
        assert a.taken == [HERE, HERE]
        assert await a.store.append(HERE, [note("n")], leased=True)


async def test_who_is_there_when_its_session_is_given_up_hears_of_it(trio: Trio, url: str) -> None:
    a, b, _ = trio
    await a.store.append(HERE, [note("n")])
    await a.store.settle(HERE)
    await until(lambda: a.deposed == [HERE])
    assert await b.store.claim(HERE)


async def test_a_node_that_is_not_heard_is_replaced_and_knows_it_later(
    beats: None, trio: Trio, url: str
) -> None:
    a, b, c = trio
    before = a.store.node
    await a.store.append(HERE, [user("m1")])
    await a.store.append(THERE, [note("nothing is open")])
    stop_beating(a)
    b.room = 5
    await until(lambda: b.woken == [HERE])
    assert [node.name for node in await c.store.nodes()] == ["b", "c"]
    with pytest.raises(LeaseLost):
        await a.store.append(HERE, [note("late")], leased=True)
    assert await b.store.append(HERE, [note("answer")], leased=True)
    await until(lambda: sql(url, "select count(*) from lunar.session where owner is null") == "1")
    assert await c.store.claim(THERE)

    beat_again(a)
    await until(lambda: a.store.node != before)
    await until(lambda: set(a.deposed) == {HERE, THERE})
    assert not a.store.holds(THERE)
    assert not await a.store.claim(HERE)
    await b.store.release(HERE)
    assert await a.store.claim(HERE)
    assert await a.store.append(HERE, [note("again")], leased=True)
    b.store.notify(a.store.node, "hello")  # on the channel of the new one
    await until(lambda: a.heard == [(b.store.node, "hello")])


async def test_what_a_dead_node_left_is_taken_once(beats: None, trio: Trio) -> None:
    a, b, c = trio
    open_ones = {session(number) for number in range(40)}
    await asyncio.gather(*(a.store.append(of, [user("m")]) for of in open_ones))
    b.room = c.room = 7
    stop_beating(a)
    await until(lambda: len(b.taken) + len(c.taken) >= 40)
    assert {*b.taken, *c.taken} == open_ones
    assert len(b.taken) + len(c.taken) == 40
    await until(lambda: {*b.woken, *c.woken} == open_ones)


async def test_without_room_nothing_is_taken(beats: None, trio: Trio) -> None:
    a, b, c = trio
    await a.store.append(HERE, [user("m")])
    stop_beating(a)
    await until(lambda: a.store.node not in alive(b))
    assert (b.woken, c.woken) == ([], [])
    await b.store.append(HERE, [user("m2")])  # a message of its own is another thing
    assert b.store.holds(HERE)


def alive(node: Node) -> set[int]:
    url = node.store._database._url
    return {int(line) for line in sql(url, "select id from lunar.node where not dead").split()}


async def test_a_database_that_was_away_kills_nobody(beats: None, tmp_path: Path) -> None:
    server = PostgresServer().start()
    try:
        async with nodes(server.database(), tmp_path, "a", "b", "c", connections=1) as trio:
            before = [node.store.node for node in trio]
            await trio[0].store.append(HERE, [user("m")])
            trio[1].room = trio[2].room = 5
            server.pause()
            await asyncio.sleep(4)  # longer than what a node is given
            server.cont()
            lost = [node.lost for node in trio]
            for node in trio:
                await node.store.nodes()
            await asyncio.sleep(1)  # a few beats
            assert [node.store.node for node in trio] == before
            assert await trio[0].store.append(HERE, [note("n")], leased=True)
            assert len(await trio[0].store.nodes()) == 3
            assert lost is not None
    finally:
        server.close()


async def test_sessions_are_named_as_they_are(beats: None, trio: Trio) -> None:
    a, b, _ = trio
    odd = [SessionId("agent:main:webchat:\ud800\0Ä"), SessionId("agent:main:cli:" + "x" * 3_000)]
    for of in odd:
        await a.store.append(of, [user("m")])
        await a.store.release(of)
    b.room = 5
    await until(lambda: set(b.woken) == set(odd))
