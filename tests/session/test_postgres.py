"""Two nodes over one database: one order, everything once, and only one of them runs a session's turns."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session.errors import BadCursor, LeaseLost, Repeated, StoreLocked
from session.events import Event, Record, System, User
from session.ids import SessionId
from session.postgres import PostgresStore
from session.postgres_reading import BACKWARDS, FORWARDS, key_of
from tests.fakes.postgres_server import shared
from tests.session.postgres_nodes import Heard, Node, nodes, until
from tests.session.stores import HERE, LONG, THERE, note, said, session, user

Pair = tuple[Node, Node]


@pytest.fixture
def url() -> str:
    return shared().database()


@pytest.fixture
async def pair(url: str, tmp_path: Path) -> AsyncIterator[Pair]:
    async with nodes(url, tmp_path, "a", "b") as (a, b):
        yield a, b


def sql(url: str, statement: str) -> str:
    return shared().sql(statement, url.rpartition("/")[2])


def texts(records: list[Record]) -> list[str]:
    return [getattr(event, "content", "") for event in said(records)]


# -- one order, everything once --------------------------------------------------------------------


async def test_what_another_stored_is_handed_over_before_our_own_that_came_after_it(pair: Pair) -> None:
    a, b = pair
    first = await a.store.append(HERE, [user("m1")])
    order: list[object] = []
    following = a.store.follow(HERE, first[-1].cursor, order.append, lambda: order.append("broken"))
    foreign = await b.store.append(HERE, [user("m2"), note("x")])
    foreign += await b.store.append(HERE, [note("y")])
    mine = a.store.append(HERE, [note("mine")])
    mine.add_done_callback(lambda stored: order.append(stored.result()))
    await mine
    await asyncio.sleep(0)
    assert order == [foreign, mine.result()]
    await following.catch_up()
    assert len(order) == 2


async def test_catching_up_brings_what_is_new_and_nothing_twice(pair: Pair) -> None:
    a, b = pair
    heard = a.follow(HERE)
    await heard.following.catch_up()
    assert heard.records == []
    for number in range(5):
        await b.store.append(HERE, [note(f"{number}")])
        await asyncio.gather(*(heard.following.catch_up() for _ in range(3)))
        assert heard.texts == [str(one) for one in range(number + 1)]
    assert heard.records == await b.store.after(HERE, None, 99)


async def test_everybody_hears_everything_once_and_in_one_order(pair: Pair) -> None:
    a, b = pair
    await a.store.append(HERE, [note("begin")])
    start = await a.store.end(HERE)

    async def talk(node: Node, name: str, own: list[Record]) -> Heard:
        heard = node.follow(HERE, start)
        for number in range(60):
            stored = node.store.append(HERE, [note(f"{name}{number}"), note(f"{name}{number}b")])
            stored.add_done_callback(lambda stored: heard.records.extend(stored.result()))
            if number % 7 == 0:
                heard.following.catch_up()
            if number % 3:
                await stored
        await stored
        await heard.following.catch_up()
        return heard

    mine: list[Record] = []
    one, other = await asyncio.gather(talk(a, "a", mine), talk(b, "b", mine))
    await asyncio.gather(one.following.catch_up(), other.following.catch_up())
    stored = await a.store.after(HERE, start, 10_000)
    assert len(stored) == 240
    assert one.records == stored
    assert other.records == stored
    assert one.broken == other.broken == 0
    for name in "ab":  # a node's own order is the order of its calls
        assert [text for text in texts(stored) if text[0] == name and text[-1] != "b"] == [
            f"{name}{number}" for number in range(60)
        ]


async def test_a_gap_larger_than_one_answer(pair: Pair) -> None:
    a, b = pair
    first = await a.store.append(HERE, [note("begin")])
    heard = a.follow(HERE, first[-1].cursor)
    await asyncio.gather(*(b.store.append(HERE, [note(str(number))]) for number in range(450)))
    mine = a.store.append(HERE, [note("mine")])
    mine.add_done_callback(lambda stored: heard.records.extend(stored.result()))
    await mine
    await asyncio.sleep(0)
    assert heard.texts == [*map(str, range(450)), "mine"]


async def test_a_session_that_another_begins(pair: Pair) -> None:
    a, b = pair
    heard = a.follow(HERE)
    await b.store.append(HERE, [user("m1")])
    mine = await a.store.append(HERE, [note("n")])
    await asyncio.sleep(0)
    assert heard.texts == ["text of m1"]
    other = a.follow(THERE)  # and one that we begin ourselves, header and all
    await a.store.append(THERE, [user("m1")])
    await other.following.catch_up()
    assert other.records == []
    assert await b.store.end(HERE) == mine[-1].cursor


async def test_a_second_follower_ends_the_first(pair: Pair) -> None:
    a, b = pair
    first, second = a.follow(HERE), a.follow(HERE)
    await b.store.append(HERE, [note("n")])
    await first.following.catch_up()
    await second.following.catch_up()
    assert (first.texts, second.texts) == ([], ["n"])
    await a.store.append(HERE, [note("mine")])
    await second.following.catch_up()
    assert second.texts == ["n"]
    second.following.close()
    await b.store.append(HERE, [note("n")])
    await second.following.catch_up()
    assert second.texts == ["n"]


async def test_who_begins_with_an_old_cursor_gets_what_came_since(pair: Pair) -> None:
    a, _ = pair
    old = await a.store.append(HERE, [note("1")])
    await a.store.append(HERE, [note("2")])
    heard = a.follow(HERE, old[-1].cursor)
    await heard.following.catch_up()
    assert heard.texts == ["2"]
    with pytest.raises(BadCursor):
        a.store.follow(HERE, "nonsense", lambda records: None, lambda: None)
    with pytest.raises(BadCursor):
        await a.store.after(THERE, "0.00000000", 9)  # nobody was ever given it


# -- messages --------------------------------------------------------------------------------------


async def test_a_message_is_stored_once_wherever_it_comes(pair: Pair) -> None:
    a, b = pair
    [stored] = await a.store.append(HERE, [user("m1")])
    for node in (a, b):
        with pytest.raises(Repeated) as told:
            await node.store.append(HERE, [note("goes with it"), user("m1")])
        assert told.value.record == stored
        assert told.value.cursor == stored.cursor
    await b.store.append(THERE, [user("m1")])  # an id is the session's
    assert texts(await a.store.after(HERE, None, 9)) == ["text of m1"]


async def test_a_repeat_is_recognised_however_old_it_is(pair: Pair) -> None:
    a, b = pair
    await a.store.append(HERE, [user("old")])
    await asyncio.gather(*(a.store.append(HERE, [user(f"m{number}")]) for number in range(600)))
    with pytest.raises(Repeated):
        await b.store.append(HERE, [user("old")])


async def test_one_of_many_at_once_is_stored(pair: Pair) -> None:
    """The same message by two nodes and twice by each: one of the four is stored."""
    a, b = pair
    for number in range(20):
        four = [node.store.append(HERE, [user(f"m{number}"), note("n")]) for node in (a, b, a, b)]
        told = await asyncio.gather(*four, return_exceptions=True)
        stored = [answer for answer in told if isinstance(answer, list)]
        assert len(stored) == 1
        assert all(one.record == stored[0][0] for one in told if isinstance(one, Repeated))
    assert len(await a.store.after(HERE, None, 100)) == 41


async def test_a_repeat_among_others_keeps_nobody_else_out(pair: Pair) -> None:
    a, _ = pair
    await a.store.append(HERE, [user("m1")])
    batches: list[list[Event]] = [[note("x")], [user("m1")], [user("m2")], [note("y")]]
    many = [a.store.append(HERE, batch) for batch in batches]
    told = await asyncio.gather(*many, return_exceptions=True)
    assert [type(one) for one in told] == [list, Repeated, list, list]
    assert texts(await a.store.after(HERE, None, 9)) == ["text of m1", "x", "text of m2", "y"]


async def test_one_batch_may_have_an_id_twice(pair: Pair) -> None:
    """`/retry` is an `undo` and a message under the one id of the command."""
    a, b = pair
    records = await a.store.append(HERE, [System(name="undo", turn="t", id="m1", ts="t"), user("m1")])
    with pytest.raises(Repeated) as told:
        await b.store.append(HERE, [user("m1")])
    assert told.value.record == records[1]
    with pytest.raises(Repeated):
        await b.store.append(HERE, [System(name="reset", id="m1")])


@pytest.mark.parametrize("id", ["", "\0", "\ud800", "\udfff\0ä", "😀", "x" * 5_000, "x" * 4_999 + "y"])
async def test_ids_may_be_any_text(pair: Pair, id: str) -> None:
    a, b = pair
    of = SessionId(f"agent:main:webchat:{id or 'x'}")
    await a.store.append(of, [User(content=id, id=id)])
    with pytest.raises(Repeated) as told:
        await b.store.append(of, [User(content="", id=id)])
    assert isinstance(told.value.record.event, User)
    assert told.value.record.event.id == id
    assert await b.store.append(of, [User(content="", id=id + "y")])
    assert [entry.session for entry in await b.store.listing()] == [of]
    await until(lambda: a.woken and set(a.woken) == {of})


# -- deleting --------------------------------------------------------------------------------------


async def test_a_follower_is_told_that_its_session_was_deleted(pair: Pair) -> None:
    a, b = pair
    records = await a.store.append(HERE, [note("1")])
    heard = a.follow(HERE, records[-1].cursor)
    assert await b.store.delete(HERE)
    await heard.following.catch_up()
    assert heard.broken == 1
    again = a.follow(HERE)
    await b.store.append(HERE, [note("2")])
    await again.following.catch_up()
    assert again.texts == ["2"]
    assert heard.records == []


async def test_an_append_into_a_namesake_breaks_the_following(pair: Pair) -> None:
    a, b = pair
    records = await a.store.append(HERE, [note("1")])
    heard = a.follow(HERE, records[-1].cursor)
    await b.store.delete(HERE)
    await b.store.append(HERE, [note("2")])
    await a.store.append(HERE, [note("3")])
    await asyncio.sleep(0)
    assert (heard.broken, heard.records) == (1, [])
    assert texts(await a.store.after(HERE, None, 9)) == ["2", "3"]


async def test_who_deletes_goes_on_following(pair: Pair) -> None:
    a, b = pair
    records = await a.store.append(HERE, [note("1")])
    heard = a.follow(HERE, records[-1].cursor)
    await a.store.delete(HERE)
    await b.store.append(HERE, [note("2")])
    await heard.following.catch_up()
    assert (heard.broken, heard.texts) == (0, ["2"])


async def test_deleting_while_another_node_appends(pair: Pair, url: str) -> None:
    """Each append is stored before or after: none fails, and nothing of a session that is gone is left."""
    a, b = pair

    async def talk() -> int:
        for number in range(80):
            await b.store.append(HERE, [user(f"m{number}"), note("n")])
        return number + 1

    talking = asyncio.create_task(talk())
    deleted = 0
    while not talking.done():
        deleted += await a.store.delete(HERE)
    assert await talking == 80
    assert deleted
    left = await a.store.after(HERE, None, 1_000)
    assert len(texts(left)) % 2 == 0
    await a.store.delete(HERE)
    for table in ("event", "message", "session"):
        assert sql(url, f"select count(*) from lunar.{table}") == "0"


async def test_a_leased_append_makes_no_session(pair: Pair) -> None:
    """What a turn says after its session was deleted must not begin a new one."""
    a, b = pair
    await a.store.append(HERE, [user("m1")])
    await b.store.delete(HERE)
    with pytest.raises(LeaseLost):
        await a.store.append(HERE, [note("answer")], leased=True)
    assert await b.store.listing() == []


# -- size ------------------------------------------------------------------------------------------


async def test_reading_costs_what_it_returns(pair: Pair, url: str) -> None:
    a, b = pair
    for _ in range(10):
        await asyncio.gather(*(a.store.append(HERE, [note("x" * 100)] * 10) for _ in range(100)))
    sql(url, "analyze")
    name = "'\\x" + key_of(HERE).hex() + "'"
    for statement in (FORWARDS, BACKWARDS):
        for low, high in ((0, 2**62), (5_000, 2**62), (0, 5_000), (2**61, 2**62)):
            told = sql(
                url,
                f"set plan_cache_mode = force_generic_plan;"
                f"prepare page (bytea, bigint, bigint, bigint) as {statement};"
                f"explain (analyze, buffers, costs off, timing off) execute page ({name}, {low}, {high}, 64)",
            )
            pages = re.search(r"Buffers: shared hit=(\d+)(?: read=(\d+))?", told)
            assert pages
            assert sum(int(one or 0) for one in pages.groups()) < 30, told
    assert len(await b.store.after(HERE, None, 20_000)) == 10_001
    assert len(await b.store.recent(HERE, lambda record: False)) == 10_001


async def test_a_line_of_some_megabytes(pair: Pair) -> None:
    a, b = pair
    records = await a.store.append(HERE, [note("Ä" * 4_000_000)])
    assert await b.store.before(HERE, None, 1) == records


# -- life ------------------------------------------------------------------------------------------


async def test_two_gateways_do_not_share_a_data_directory(url: str, tmp_path: Path) -> None:
    async with nodes(url, tmp_path, "a"):
        second = PostgresStore(url, tmp_path / "a", "b")
        with pytest.raises(StoreLocked):
            await second.open()


async def test_a_reader_is_no_node_and_needs_no_directory(url: str, tmp_path: Path) -> None:
    async with nodes(url, tmp_path, "a") as [a]:
        await a.store.append(HERE, [user("m")])
        reader = PostgresStore(url, tmp_path / "nowhere", None)
        await reader.open()
        assert texts(await reader.after(HERE, None, 9)) == ["text of m"]
        assert [node.name for node in await reader.nodes()] == ["a"]
        assert await reader.delete(HERE)
        await reader.close()
        assert not (tmp_path / "nowhere").exists()
        assert [node.name for node in await a.store.nodes()] == ["a"]


async def test_nothing_is_archived(pair: Pair) -> None:
    a, _ = pair
    await a.store.append(HERE, [user("m")])
    why = await a.store.archive(HERE)
    assert why is not None
    assert why.startswith("not supported")


async def test_a_long_session_id_wakes_its_owner_too(pair: Pair) -> None:
    a, b = pair
    longest = SessionId(LONG + "x" * 9_000)  # too long for a notice: its owner finds it at a beat
    for of in (LONG, longest):
        await a.store.append(of, [user("m1")])
        await b.store.append(of, [user("m2")])
        await until(lambda of=of: of in a.woken)  # type: ignore[misc] # a default binds it


async def test_sessions_are_apart(pair: Pair) -> None:
    a, b = pair
    both = [(node, session(number)) for number in range(30) for node in (a, b)]
    await asyncio.gather(*(node.store.append(of, [user(f"{node.store.name}")]) for node, of in both))
    for number in range(30):
        assert sorted(texts(await a.store.after(session(number), None, 9))) == ["text of a", "text of b"]
