"""A database that is cut off, stopped, paused, read-only or replaced: what was acknowledged stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from session import postgres_database, postgres_wire
from session.errors import LeaseLost, Repeated, StorageError
from session.events import Record
from tests.fakes.postgres_server import PostgresServer, shared
from tests.fakes.proxy import Proxy
from tests.session.postgres_nodes import Node, nodes, until
from tests.session.stores import HERE, THERE, note, said, user


@pytest.fixture
def url() -> str:
    return shared().database()


@pytest.fixture
async def node(url: str, tmp_path: Path) -> AsyncIterator[Node]:
    async with nodes(url, tmp_path, "a") as [node]:
        yield node


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=True).start()
    yield server
    server.close()


def through(url: str, proxy: Proxy) -> str:
    return f"postgresql://lunar@127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}"


def texts(records: list[Record]) -> list[str]:
    return [getattr(event, "content", "") for event in said(records)]


@asynccontextmanager
async def held(url: str) -> AsyncIterator[asyncpg.Connection]:
    """The session's row in somebody else's hands: who appends has to wait."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("select from lunar.session for update")
            yield connection
    finally:
        await connection.close()


async def waiting(holder: asyncpg.Connection, what: str = "lunar.append", count: int = 1) -> list[int]:
    """The server's processes that wait for that row."""
    found: list[int] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            await asyncio.sleep(0.01)
            await holder.execute("select pg_stat_clear_snapshot()")  # it is in a transaction
            rows = await holder.fetch(
                "select pid from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database() and query like $1",
                f"%{what}%",
            )
            found = [row["pid"] for row in rows]
    return found


# -- connections -----------------------------------------------------------------------------------


async def test_an_append_whose_connection_is_cut_is_refused_and_the_next_is_not(node: Node, url: str) -> None:
    await node.store.append(HERE, [user("m0")])
    async with held(url) as holder:
        first = node.store.append(HERE, [user("m1")])
        [pid] = await waiting(holder)
        behind = node.store.append(HERE, [user("m2")])
        await holder.execute("select pg_terminate_backend($1)", pid)
        with pytest.raises(StorageError):
            await first
        assert node.store.fault
    await behind
    assert node.store.fault is None
    assert texts(await node.store.after(HERE, None, 9)) == ["text of m0", "text of m2"]
    assert await node.store.append(HERE, [note("n")], leased=True)


async def test_an_append_whose_answer_is_lost_is_found(url: str, tmp_path: Path) -> None:
    """The message was told to have failed, and is there: who looks sees it, who sends it again is told so."""
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        begin = await node.store.append(HERE, [user("m0")])
        heard = node.follow(HERE, begin[-1].cursor)
        async with held(url) as holder:
            lost = node.store.append(HERE, [user("m1"), note("n")])
            await waiting(holder)
            proxy.cut()
            with pytest.raises(StorageError):
                await lost
            looking = asyncio.create_task(node.store.recent(HERE, lambda record: False))
            await waiting(holder, "lunar.claim")
        assert texts(await looking) == ["text of m0", "text of m1", "n"]
        with pytest.raises(Repeated):
            await node.store.append(HERE, [user("m1")])
        await node.store.append(HERE, [note("after")])
        await asyncio.sleep(0)
        assert heard.texts == ["text of m1", "n"]
        assert node.store.holds(HERE)
        await until(lambda: HERE in node.woken)  # somebody must answer it


async def test_what_was_sent_before_and_comes_late_is_refused(url: str, tmp_path: Path) -> None:
    """A turn's words whose answer was lost must not appear after others were written in their place."""
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m0")])
        old = node.store._leases.desk(HERE).epoch
        async with held(url) as holder:
            lost = node.store.append(HERE, [note("lost")], leased=True)
            [pid] = await waiting(holder)
            proxy.cut()
            with pytest.raises(StorageError):
                await lost
            await holder.execute("select pg_terminate_backend($1)", pid)
        await node.store.append(HERE, [note("instead")], leased=True)
        node.store._leases.desk(HERE).epoch = old
        with pytest.raises(LeaseLost):
            await node.store.append(HERE, [note("late")], leased=True)
        assert texts(await node.store.after(HERE, None, 9)) == ["text of m0", "instead"]


async def test_whoever_claims_in_doubt_keeps_out_what_comes_late(node: Node) -> None:
    await node.store.append(HERE, [user("m0")])
    desk = node.store._leases.desk(HERE)
    old, desk.doubts = desk.epoch, 1
    assert await node.store.claim(HERE)
    assert not desk.doubts
    desk.epoch, new = old, desk.epoch
    with pytest.raises(LeaseLost):
        await node.store.append(HERE, [note("late")], leased=True)
    assert await node.store.claim(HERE)
    assert node.store._leases.desk(HERE).epoch == new
    assert texts(await node.store.after(HERE, None, 9)) == ["text of m0"]


async def test_a_lease_that_came_with_a_lost_answer_is_known_in_the_end(url: str, tmp_path: Path) -> None:
    """A first message whose answer is lost makes its node the owner: somebody there must answer it."""
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        await node.store.append(HERE, [note("n")])
        await node.store.settle(HERE)
        async with held(url) as holder:
            lost = node.store.append(HERE, [user("m1")])
            await waiting(holder)
            proxy.cut()
            with pytest.raises(StorageError):
                await lost
        await until(lambda: node.woken == [HERE])
        assert node.store.holds(HERE)


async def test_a_claim_whose_answer_is_lost_is_found(url: str, tmp_path: Path) -> None:
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m1")])
        await node.store.release(HERE)
        async with held(url) as holder:
            claiming = asyncio.create_task(node.store.claim(HERE))
            await waiting(holder, "lunar.claim")
            proxy.cut()
            with pytest.raises(StorageError):
                await claiming
        await until(lambda: node.woken == [HERE])
        assert await node.store.append(HERE, [note("n")], leased=True)


async def test_a_turn_that_speaks_while_others_ask_keeps_its_lease(url: str, tmp_path: Path) -> None:
    """Whoever asks what became of an append renews the lease; two numbers at once would refuse the turn."""
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m0")])
        async with held(url) as holder:
            lost = node.store.append(HERE, [note("lost")], leased=True)
            [pid] = await waiting(holder)
            proxy.cut()
            with pytest.raises(StorageError):
                await lost
            await holder.execute("select pg_terminate_backend($1)", pid)
            said = node.store.append(HERE, [note("said")], leased=True)
            reading = [asyncio.create_task(node.store.recent(HERE, lambda record: False)) for _ in range(3)]
            await waiting(holder, "lunar.claim")
            await holder.execute("select pg_sleep(0.2)")  # so that a second one would wait behind it
        await said
        await asyncio.gather(*reading)
        assert node.store.holds(HERE)
        assert await node.store.append(HERE, [note("more")], leased=True)


async def test_an_answer_that_is_older_than_the_lease_does_not_take_it_away(node: Node, url: str) -> None:
    """A session is taken on one connection while another one still says whose it was before."""
    await node.store.append(HERE, [user("m0")])
    desk = node.store._leases.desk(HERE)
    async with held(url) as holder:
        late = node.store.append(HERE, [note("late")], leased=True)
        await waiting(holder)
        await holder.execute("update lunar.session set epoch = epoch + 1")
        node.store._leases.take(desk, (desk.epoch or 0) + 1)  # as a beat does
    with pytest.raises(LeaseLost):
        await late
    assert node.store.holds(HERE)
    assert await node.store.append(HERE, [note("now")], leased=True)


async def test_what_is_ours_and_nobody_told_us_is_found(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that was sent on a connection which is gone may be carried out after all was looked at."""
    monkeypatch.setattr(postgres_wire, "BEAT", 0.1)
    async with nodes(url, tmp_path, "a", "b") as [a, b]:
        await b.store.append(HERE, [user("m0")])
        await b.store.append(THERE, [user("m0")])
        heard = a.follow(THERE, await a.store.end(THERE))
        await b.store.release(HERE)
        await b.store.release(THERE)
        assert await a.store.claim(THERE)
        owners = (
            f"update lunar.session set owner = {a.store.node}, epoch = nextval('lunar.epoch') where id = "
        )
        shared().sql(f"{owners} '{HERE}'", url.rpartition("/")[2])
        await until(lambda: HERE in a.woken)
        assert await a.store.append(HERE, [note("n")], leased=True)
        late = "name, id, owner, true, null, tag, null, true, 9, '', array['{}'::bytea], '{}', '{}'"
        shared().sql(
            f"select lunar.append({late}) from lunar.session where id = '{THERE}'", url.rpartition("/")[2]
        )
        await until(lambda: THERE in a.woken)
        await heard.following.catch_up()
        assert heard.records


async def test_what_another_node_runs_and_nobody_told_us_is_found(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_wire, "BEAT", 0.1)
    async with nodes(url, tmp_path, "a", "b") as [a, b]:
        await a.store.append(HERE, [user("m0")])
        taken = f"update lunar.session set owner = {b.store.node}, epoch = nextval('lunar.epoch')"
        shared().sql(taken, url.rpartition("/")[2])
        await until(lambda: a.deposed == [HERE])
        assert not a.store.holds(HERE)
        await until(lambda: HERE in b.woken)


async def test_a_release_that_failed_is_no_dead_end(url: str, tmp_path: Path) -> None:
    """The table says that it is ours, and nobody else would ever run it."""
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m1")])
        proxy.refusing = True
        proxy.reset()
        await node.store.release(HERE)
        assert not node.store.holds(HERE)
        proxy.heal()
        await until(lambda: node.woken and node.store.holds(HERE))


async def test_what_was_taken_and_not_told_is_found_when_the_connection_is_back(
    url: str, tmp_path: Path
) -> None:
    async with nodes(url, tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m1")])
        await node.store.append(THERE, [note("n")])
        for of in (HERE, THERE):  # as if the answer that gave it to us had never come
            node.store._leases.desk(of).epoch = None
        connection = node.store._wire._connection
        assert connection is not None
        connection.terminate()
        await until(lambda: set(node.woken) == {HERE, THERE})
        assert await node.store.append(HERE, [note("n")], leased=True)


async def test_what_is_ours_and_nobody_has_open_is_opened(
    node: Node, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be given back, or somebody wrote into it and the answer of that beat was lost."""
    monkeypatch.setattr(postgres_wire, "BEAT", 0.1)
    await node.store.append(HERE, [user("m1")])
    heard = node.follow(HERE)
    connection = node.store._wire._connection
    assert connection is not None
    heard.following.close()  # its lane is gone, and the lease stayed
    node.woken.clear()
    connection.terminate()
    await until(lambda: HERE in node.woken)


async def test_a_session_that_is_locked_is_no_fault_of_the_store(
    node: Node, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.store.append(HERE, [user("m0")])
    for function in ("append", "remove"):
        shared().sql(f"alter function lunar.{function} set lock_timeout = '100ms'", url.rpartition("/")[2])
    async with held(url):
        with pytest.raises(StorageError, match="lock"):
            await node.store.append(HERE, [user("m1")])
        with pytest.raises(StorageError, match="lock"):
            await node.store.delete(HERE)
        assert node.store.fault is None
    await node.store.append(HERE, [user("m1")])


_LATER = "select lunar.append(name, id, null, false, null, tag, null, false, 9, '', {}) from lunar.session"


async def _ended(connection: asyncpg.Connection, pid: int) -> None:
    async with asyncio.timeout(20):
        alive = 1
        while alive:
            await asyncio.sleep(0.01)
            alive = await connection.fetchval("select count(*) from pg_stat_activity where pid = $1", pid)


async def test_a_deletion_that_comes_late_takes_nothing_with_it(url: str, tmp_path: Path) -> None:
    """Its answer was lost, and whoever asked for it was told so: what was said since then stays."""
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m0")])
        async with held(url) as holder:
            deleting = asyncio.create_task(node.store.delete(HERE))
            [pid] = await waiting(holder, "lunar.remove")
            proxy.cut()
            with pytest.raises(StorageError):
                await deleting
            lines = "array[convert_to('{\"type\":\"x\"}', 'UTF8')], '{}', '{}'"
            await holder.execute(_LATER.format(lines))
        connection = await asyncpg.connect(url)
        try:
            await _ended(connection, pid)
            assert await connection.fetchval("select seq from lunar.session") == 3
        finally:
            await connection.close()
        assert await node.store.append(HERE, [note("n")])
        assert await node.store.delete(HERE)


async def test_a_release_that_comes_late_gives_nothing_away(url: str, tmp_path: Path) -> None:
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m0")])
        async with held(url) as holder:
            releasing = asyncio.create_task(node.store.release(HERE))
            await waiting(holder, "lunar.release")
            proxy.cut()
            await releasing
            await waiting(holder, "lunar.claim")  # it is in doubt, and claimed
        await until(lambda: node.store.holds(HERE))
        assert await node.store.append(HERE, [note("n")], leased=True)


async def test_a_deletion_that_breaks_does_not_hold_up_what_comes_after_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.store.append(HERE, [user("m0")])

    async def breaks(statement: str, *arguments: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(node.store._database, "row_or_nothing", breaks)
        with pytest.raises(ZeroDivisionError):
            await node.store.delete(HERE)
    await node.store.append(HERE, [user("m1")])


async def test_a_server_that_does_not_answer(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "_ANSWER", 0.5)
    monkeypatch.setattr(postgres_database, "_CONNECT", 0.5)
    monkeypatch.setattr(postgres_database, "_FREE", 0.5)
    monkeypatch.setattr(postgres_wire, "_ANSWER", 0.5)
    async with Proxy(shared().port) as proxy, nodes(through(url, proxy), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m0")])
        proxy.half_open()
        proxy.swallowing = True
        async with asyncio.timeout(10):
            with pytest.raises(StorageError, match="does not answer"):
                await node.store.append(HERE, [user("m1")])
            with pytest.raises(StorageError):
                await node.store.recent(HERE, lambda record: False)
            await node.store.settle(HERE)
            await node.store.release(HERE)
        proxy.heal()
        await until(lambda: node.lost)
        await node.store.append(HERE, [user("m2")])
        assert texts(await node.store.after(HERE, None, 9)) == ["text of m0", "text of m2"]


async def test_a_session_that_somebody_holds_does_not_hold_up_the_others(
    node: Node, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.store.append(HERE, [user("m0")])
    async with held(url) as holder:
        blocked = node.store.append(HERE, [user("m1")])
        await waiting(holder)
        await node.store.append(THERE, [user("m1")])
    await blocked


async def test_a_caller_that_goes_away_in_the_middle(node: Node, url: str) -> None:
    await node.store.append(HERE, [user("m0")])
    async with held(url) as holder:
        gone = node.store.append(HERE, [user("m1")])
        await waiting(holder)
        gone.cancel()
        reading = asyncio.create_task(node.store.claim(HERE))
        reading.cancel()
    await node.store.append(HERE, [user("m2")])
    assert texts(await node.store.after(HERE, None, 9)) == [f"text of m{number}" for number in range(3)]


# -- servers ---------------------------------------------------------------------------------------


async def test_a_server_that_is_away_refuses_and_comes_back(server: PostgresServer, tmp_path: Path) -> None:
    async with nodes(server.database(), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m0")])
        await asyncio.to_thread(server.kill)
        for read in (node.store.end(HERE), node.store.listing(), node.store.append(HERE, [user("m1")])):
            with pytest.raises(StorageError, match=r"PostgreSQL at 127\.0\.0\.1"):
                await read
        with pytest.raises(StorageError):
            await node.store.delete(THERE)
        await asyncio.to_thread(server.start)
        await until(lambda: node.lost)
        await node.store.append(HERE, [user("m1")])
        assert texts(await node.store.after(HERE, None, 9)) == ["text of m0", "text of m1"]


async def test_a_server_that_takes_no_writes_any_more(server: PostgresServer, tmp_path: Path) -> None:
    async with nodes(server.database(), tmp_path, "a") as [node]:
        await node.store.append(HERE, [user("m0")])
        server.sql("alter system set default_transaction_read_only = on")
        server.sql("select pg_reload_conf()")

        async def outcome() -> str:
            try:
                await node.store.append(HERE, [note("n")])
            except StorageError as error:
                return str(error)
            return ""

        async def until_it(says: str) -> None:
            async with asyncio.timeout(20):
                while says not in (told := await outcome()) or bool(told) != bool(says):  # noqa: ASYNC110 - as it says
                    await asyncio.sleep(0.02)

        await until_it("takes no writes")  # said on a connection that there was
        await until_it("no server there takes writes")  # and by those that are made now
        server.sql("alter system reset default_transaction_read_only")
        server.sql("select pg_reload_conf()")
        await until_it("")
        await until(lambda: node.store.fault is None)


async def test_what_was_acknowledged_is_on_the_standby(server: PostgresServer, tmp_path: Path) -> None:
    """The primary dies with -9 under load, the standby is promoted: every acknowledged message is there."""
    name = server.database().rpartition("/")[2]
    standby = await asyncio.to_thread(server.standby)
    url = f"postgresql://lunar@127.0.0.1:{server.port},127.0.0.1:{standby.port}/{name}"
    acknowledged: list[str] = []
    async with nodes(url, tmp_path, "a", "b") as pair:
        enough, over = asyncio.Event(), asyncio.Event()

        async def talk(node: Node, who: int) -> None:
            number = 0
            while not over.is_set():
                id = f"{who}.{number}"
                try:
                    await node.store.append(HERE if who % 2 else THERE, [user(id)])
                except Repeated:
                    pass  # it was stored the first time, and its answer lost
                except StorageError:
                    await asyncio.sleep(0.05)
                    continue
                acknowledged.append(id)
                number += 1
                if len(acknowledged) == 150:
                    enough.set()

        talking = [asyncio.create_task(talk(pair[who % 2], who)) for who in range(6)]
        async with asyncio.timeout(30):
            await enough.wait()
        heard = pair[0].follow(HERE, await pair[0].store.end(HERE))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(standby.promote)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 50)
        over.set()
        await asyncio.gather(*talking)
        await until(lambda: pair[0].lost and pair[1].lost)
        await until(lambda: heard.broken)  # its history may be another one: it is read anew
        stored = [
            event.id
            for of in (HERE, THERE)
            for event in said(await pair[1].store.after(of, None, 100_000))
            if hasattr(event, "id")
        ]
        assert len(set(stored)) == len(stored)
        assert set(acknowledged) <= set(stored)
