"""What is wrong with an address, said in one sentence, without its password."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from asyncpg.exceptions import ClientConfigurationError

from session import postgres_database, postgres_schema
from session.errors import SessionError, StorageError, StoreUnfit
from session.postgres import PostgresStore
from session.postgres_database import Database
from tests.fakes.postgres_server import PostgresServer, shared
from tests.session.postgres_nodes import nodes
from tests.session.stores import HERE, user

SECRET = "s3cret"


async def failure(url: str, folder: Path) -> SessionError:
    """What `open` says of this url; whatever it took is given back."""
    for _ in range(2):  # the second time: the first one let go of the directory's lock
        with pytest.raises((StoreUnfit, StorageError)) as told:
            await PostgresStore(url, folder, "a").open()
    text = str(told.value)
    assert SECRET not in text
    assert "\n" not in text
    assert isinstance(told.value, SessionError)
    return told.value


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://lunar:s3cret@127.0.0.1/lunar",
        "postgresql://lunar:s3cret@127.0.0.1:port/lunar",
        "postgresql://lunar:a/s3cret@127.0.0.1/lunar",
        "postgresql://lunar:a#s3cret@127.0.0.1/lunar",
        "postgresql://lunar:a?s3cret@127.0.0.1/lunar",
        "postgresql://lunar:s3cret@127.0.0.1:99999/lunar",
        "postgresql://lunar:s3cret@127.0.0.1/lunar?sslmode=s3cret",
        "postgresql://lunar:s3cret@[::1/lunar",
    ],
)
async def test_what_is_no_address(url: str, tmp_path: Path) -> None:
    error = await failure(url, tmp_path)
    assert isinstance(error, StoreUnfit | StorageError)
    assert "store.url" in str(error) or "PostgreSQL at" in str(error)


async def test_a_password_that_is_wrong(tmp_path: Path) -> None:
    shared().sql("drop role if exists locked; create role locked login password 'right'")
    url = shared().database().replace("lunar@", f"locked:{SECRET}@")
    error = await failure(url, tmp_path)
    assert isinstance(error, StoreUnfit)
    assert str(error).startswith(f"PostgreSQL at 127.0.0.1:{shared().port}/test_")
    assert "refuses the user or the password of store.url" in str(error)


async def test_a_user_without_rights(tmp_path: Path) -> None:
    shared().sql("drop role if exists poor; create role poor login")
    url = shared().database()
    error = await failure(url.replace("lunar@", "poor@"), tmp_path)
    assert isinstance(error, StoreUnfit)
    assert "CREATE on it" in str(error)


async def test_a_user_that_is_not_there(tmp_path: Path) -> None:
    error = await failure(shared().database().replace("lunar@", f"nobody:{SECRET}@"), tmp_path)
    assert isinstance(error, StoreUnfit)


async def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    error = await failure(shared().url("nowhere"), tmp_path)
    assert isinstance(error, StoreUnfit)
    assert str(error).endswith("/nowhere has no database of this name; make it with createdb.")


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        error = await failure(f"postgresql://lunar:{SECRET}@127.0.0.1:{port}/lunar", tmp_path)
    assert isinstance(error, StorageError)
    assert f"PostgreSQL at 127.0.0.1:{port}/lunar cannot be reached" in str(error)


async def test_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_database, "_CONNECT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = await failure(f"postgresql://lunar@127.0.0.1:{silent.getsockname()[1]}/lunar", tmp_path)
    assert isinstance(error, StorageError)
    assert "does not answer" in str(error)


async def test_of_several_servers_the_one_that_takes_writes_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One has no power, one is a standby: each costs its own time, and not that of the next."""
    monkeypatch.setattr(postgres_database, "_CONNECT", 1.0)
    server = PostgresServer().start()
    try:
        standby = server.standby(synchronous=False)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            ports = (silent.getsockname()[1], standby.port, server.port)
            hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
            database = Database(f"postgresql://lunar@{hosts}/postgres", "test")
            await database.open()
            for _ in range(3):
                row = await database.row("select inet_server_port()")
                assert row is not None
                assert row[0] == server.port
            assert database.place.endswith(f"{hosts}/postgres")
            await database.close()
            alone = Database(f"postgresql://lunar@127.0.0.1:{standby.port}/postgres", "test")
            with pytest.raises(StorageError, match="no server there takes writes"):
                await alone.open()
    finally:
        server.close()


async def test_a_socket_instead_of_a_port(tmp_path: Path) -> None:
    server = shared()
    name = server.database().rpartition("/")[2]
    url = f"postgresql:///{name}?host={server.folder}&port={server.port}&user=lunar"
    async with nodes(url, tmp_path, "a") as [node]:
        assert await node.store.append(HERE, [user("m")])
        assert node.store._database.place == f"PostgreSQL at {server.folder}/{name}"


async def test_what_is_not_open_says_so() -> None:
    with pytest.raises(StorageError, match="not connected"):
        await Database("postgresql://127.0.0.1/lunar", "test").row("select 1")


async def test_an_address_that_was_understood_is_not_unfit_later(tmp_path: Path) -> None:
    """A certificate that it names may be away while it is renewed."""
    database = Database(shared().database(), "a")
    with pytest.raises(StoreUnfit), database.mapped():
        raise ClientConfigurationError("root certificate file does not exist")
    database.begun = True
    with pytest.raises(StorageError, match="root certificate"), database.mapped():
        raise ClientConfigurationError("root certificate file does not exist")


async def test_settings_that_endanger_what_is_acknowledged_are_told(tmp_path: Path) -> None:
    async with nodes(shared().database(), tmp_path, "a") as [node]:
        assert [text.partition(": ")[2].partition(" is ")[0] for text in node.store.warnings] == [
            "fsync",
            "full_page_writes",
        ]
    server = PostgresServer(durable=True, settings={"synchronous_commit": "off"}).start()
    try:
        async with nodes(server.database(), tmp_path, "b") as [node]:
            assert node.store.warnings == []
            row = await node.store._database.row("show synchronous_commit")
            assert row is not None
            assert row[0] == "on"  # whatever the server's default is
    finally:
        server.close()


# -- the schema ------------------------------------------------------------------------------------


async def test_many_first_starts_at_once(tmp_path: Path) -> None:
    url = shared().database()
    async with nodes(url, tmp_path, *"abcdef", connections=1) as several:
        await asyncio.gather(*(node.store.append(HERE, [user(str(n))]) for n, node in enumerate(several)))
    told = shared().sql("select number, name from lunar.migration order by 1", url.rpartition("/")[2])
    assert told.splitlines() == [f"{int(step.stem[:4])}|{step.stem[5:]}" for step in postgres_schema.steps()]


def test_steps_are_numbered_without_a_gap() -> None:
    assert [int(step.stem[:4]) for step in postgres_schema.steps()] == [
        number + 1 for number in range(len(postgres_schema.steps()))
    ]


async def test_a_newer_gateways_database_is_left_alone(tmp_path: Path) -> None:
    url = shared().database()
    async with nodes(url, tmp_path, "a"):
        pass
    shared().sql("insert into lunar.migration (number, name) values (999, 'x')", url.rpartition("/")[2])
    error = await failure(url, tmp_path / "a")
    assert isinstance(error, StoreUnfit)
    assert "schema 999" in str(error)
    assert "update this one" in str(error)


async def test_who_comes_later_needs_no_more_rights_than_to_use_it(tmp_path: Path) -> None:
    url = shared().database()
    name = url.rpartition("/")[2]
    async with nodes(url, tmp_path, "a"):
        pass
    shared().sql(
        "drop role if exists worker; create role worker login; grant usage on schema lunar to worker;"
        " grant all on all tables in schema lunar to worker;"
        " grant all on all sequences in schema lunar to worker",
        name,
    )
    try:
        async with nodes(url.replace("lunar@", "worker@"), tmp_path, "b") as [node]:
            assert await node.store.append(HERE, [user("m")])
    finally:
        shared().sql("drop owned by worker; drop role worker", name)


async def test_a_step_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = shared().database()
    bad = tmp_path / "0002_bad.sql"
    bad.write_text("create table lunar.half (a int); select 1 / 0")
    first = postgres_schema.steps()[:1]
    monkeypatch.setattr(postgres_schema, "steps", lambda: [*first, bad])
    await failure(url, tmp_path)
    monkeypatch.undo()
    assert (
        shared().sql("select count(*) from pg_namespace where nspname = 'lunar'", url.rpartition("/")[2])
        == "0"
    )
    async with nodes(url, tmp_path, "a"):
        pass
