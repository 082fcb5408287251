"""How many statements and notices things cost, as the server counts them: docs/scale-out.md says it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session import postgres_wire
from session.events import Assistant, System
from tests.fakes.postgres_server import shared
from tests.session.postgres_nodes import Node, nodes, until
from tests.session.stores import HERE, THERE, note, session, user


class Counter:
    """Statements that clients sent to one database, by what they are for."""

    def __init__(self, url: str) -> None:
        self._name = url.rpartition("/")[2]
        self.sql("create extension pg_stat_statements")
        self.read()

    def sql(self, statement: str) -> str:
        return shared().sql(statement, self._name)

    def read(self) -> dict[str, int]:
        """What came since the last reading, but for beats and our own."""
        rows = self.sql(
            "select coalesce(substring(query from 'lunar\\.(\\w+)'), substring(query from 'pg_notify'),"
            " replace(query, chr(10), ' ')), sum(calls) from pg_stat_statements"
            " where dbid = (select oid from pg_database where datname = current_database())"
            " and query not like '%pg_stat_statements%' and query not like '%lunar.beat%' group by 1"
        )
        self.sql(
            "select pg_stat_statements_reset(0, (select oid from pg_database"
            " where datname = current_database()), 0)"
        )
        return {row.rpartition("|")[0]: int(row.rpartition("|")[2]) for row in rows.splitlines()}


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Node, Node, Counter]]:
    monkeypatch.setattr(postgres_wire, "BEAT", 3600.0)
    url = shared().database()
    async with nodes(url, tmp_path, "a", "b") as (a, b):
        await a.store.append(THERE, [note("begin")])
        await b.store.append(THERE, [note("begin")])
        await until(lambda: a.woken)
        yield a, b, Counter(url)


async def test_a_turn_on_the_node_where_its_message_came(pair: tuple[Node, Node, Counter]) -> None:
    a, _, counter = pair
    await a.store.append(HERE, [user("m0")])
    await a.store.append(HERE, [Assistant(content="a", turn="t0", answers=("m0",))], leased=True)
    heard = a.follow(HERE, await a.store.end(HERE))
    counter.read()
    for number in range(1, 4):
        await a.store.append(HERE, [user(f"m{number}")])
        await a.store.claim(HERE)
        started = System(name="started", turn=f"t{number}", messages=(f"m{number}",), attempt=1)
        a.store.append(HERE, [started], sync=False, leased=True)
        answer = Assistant(content="answer", turn=f"t{number}", answers=(f"m{number}",), finish="stop")
        await a.store.append(HERE, [answer], leased=True)
        told = counter.read()
        assert told.pop("append") <= 3  # two where the answer came before `started` was on its way
        assert told == {}
    await a.store.settle(HERE)
    assert counter.read() == {"settle": 1}
    assert heard.records == []


async def test_a_session_that_is_opened_anew(pair: tuple[Node, Node, Counter]) -> None:
    a, b, counter = pair
    await a.store.append(HERE, [user("m0")])
    await a.store.settle(HERE)
    counter.read()
    records = await b.store.recent(HERE, lambda record: False)
    b.follow(HERE, records[-1].cursor)
    await b.store.append(HERE, [user("m1")])
    assert await b.store.claim(HERE)
    told = counter.read()
    assert told == {"append": 1, "session": 1}


async def test_a_message_on_another_node(pair: tuple[Node, Node, Counter]) -> None:
    a, b, counter = pair
    records = await a.store.append(HERE, [user("m0")])
    heard = a.follow(HERE, records[-1].cursor)
    counter.read()
    a.woken.clear()
    await b.store.append(HERE, [user("m1")])
    await until(lambda: a.woken)
    await heard.following.catch_up()
    assert counter.read() == {"append": 1, "pg_notify": 1, "session": 1}
    await b.store.append(HERE, [user("m2")])
    await a.store.append(HERE, [note("answer")], leased=True)  # brings it along
    assert len(heard.records) == 2
    await until(lambda: len(a.woken) == 2)
    assert counter.read() == {"append": 2, "pg_notify": 1}


async def test_what_comes_at_once_shares_statements(pair: tuple[Node, Node, Counter]) -> None:
    a, _, counter = pair
    await asyncio.gather(*(a.store.append(HERE, [note(str(number))]) for number in range(100)))
    assert counter.read() == {"append": 1}
    first = a.store.append(HERE, [note("first")])
    await asyncio.sleep(0)
    await asyncio.gather(first, *(a.store.append(HERE, [note(str(number))]) for number in range(100)))
    assert counter.read() == {"append": 2}
    for number in range(1_000):
        a.store.notify(None, str(number))
    await until(lambda: pair[1].heard and pair[1].heard[-1][1] == "999")
    assert counter.read()["pg_notify"] <= 4


async def test_many_sessions_and_many_events_make_nothing_dearer(pair: tuple[Node, Node, Counter]) -> None:
    """Pages of the database touched by one append: the same among 50,000 sessions of 20 lines each."""
    a, _, counter = pair

    def touched() -> int:
        told = counter.sql(
            "select sum(shared_blks_hit + shared_blks_read) / sum(calls) from pg_stat_statements"
            " where query like '%lunar.append%'"
        )
        return round(float(told))

    async def some(first: int) -> int:
        for number in range(first, first + 5):  # prepared plans, and pages that are new
            await a.store.append(session(number), [user("m")])
        counter.read()
        for number in range(first, first + 20):
            await a.store.append(session(number), [note("n")])
        return touched()

    before = await some(0)
    counter.sql(
        "insert into lunar.session (name, id, seq) select convert_to('other' || n, 'utf8'),"
        " convert_to('other' || n, 'utf8'), 20 from generate_series(1, 50000) n"
    )
    counter.sql(
        "insert into lunar.event select key, n, 'line' from lunar.session, generate_series(1, 20) n"
        " where seq = 20"
    )
    counter.sql("analyze")
    after = await some(1_000)
    assert after <= before + 15, f"{before} -> {after}"
