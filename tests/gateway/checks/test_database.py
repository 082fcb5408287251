"""What `lunar check` says of a real PostgreSQL: a sentence and a fix each, and never a password."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.checks import database
from gateway.checks.finding import Finding, Scene
from gateway.config import Config
from gateway.config_problem import NOWHERE
from session.postgres_database import Database
from session.postgres_schema import prepare
from tests.fakes.postgres_server import PostgresServer, shared

PASSWORD = "s3cr3t-Pa55"


@pytest.fixture
def server() -> PostgresServer:
    return shared()


def found(url: str, *, offline: bool = False) -> list[Finding]:
    config = Config.model_validate({"store": {"url": url}})
    findings = list(database.database(Scene(config, NOWHERE, None, offline)))
    assert PASSWORD not in str(findings)
    assert all(finding.fix for finding in findings if finding.level != "ok")
    return findings


def prepared(url: str) -> None:
    async def work() -> None:
        opened = Database(url, "lunar test", 1)
        await opened.open()
        await prepare(opened)
        await opened.close()

    asyncio.run(work())


def as_user(server: PostgresServer, url: str, user: str, password: str = PASSWORD) -> str:
    return url.replace("//lunar@", f"//{user}:{password}@")


def named(url: str) -> str:
    return url.rpartition("/")[2]


def test_without_a_database_nothing_is_said() -> None:
    assert not list(database.database(Scene(Config(), NOWHERE, None, False)))


def test_a_new_and_a_used_database(server: PostgresServer) -> None:
    url = server.database()
    [first, unsafe, torn] = found(url)  # the tests' server does not wait for its disk
    assert first.level == "ok"
    assert "the next start brings its schema from 0 to" in first.text
    assert unsafe.level == "warning"
    assert "fsync is off" in unsafe.text
    assert "full_page_writes is off" in torn.text
    prepared(url)
    assert "; no standby is waited for" in found(url)[0].text
    [skipped] = found(url, offline=True)
    assert skipped.text == "is not asked (--offline)"


def test_nobody_there() -> None:
    [finding] = found(f"postgresql://lunar:{PASSWORD}@127.0.0.1:1/lunar")
    assert (finding.level, finding.code) == ("problem", 75)
    assert "127.0.0.1:1" in finding.text


def test_no_such_database(server: PostgresServer) -> None:
    [finding] = found(as_user(server, server.url("nowhere"), "lunar"))
    assert "has no database of this name" in finding.text


def test_a_wrong_password(server: PostgresServer) -> None:
    url = server.database()
    server.sql("drop role if exists locked")
    server.sql("create role locked login password 'another'")
    [finding] = found(as_user(server, url, "locked"))
    assert finding.code == 78
    assert "refuses the user or the password" in finding.text


def test_a_user_without_rights(server: PostgresServer) -> None:
    fresh, used = server.database(), server.database()
    server.sql("drop role if exists guest")
    server.sql("create role guest login")
    [finding] = found(as_user(server, fresh, "guest"))
    assert "may make no tables" in finding.text
    assert f"grant create on database {named(fresh)} to guest" in finding.fix
    prepared(used)
    [finding] = found(as_user(server, used, "guest"))
    assert finding.code == 77
    assert "may not use these tables" in finding.text
    assert "session" in finding.text
    server.sql("grant usage on schema lunar to guest", named(used))
    server.sql("grant all on all tables in schema lunar to guest", named(used))
    assert found(as_user(server, used, "guest"))[0].level == "ok"


def test_a_schema_of_a_newer_gateway(server: PostgresServer) -> None:
    url = server.database()
    prepared(url)
    server.sql("insert into lunar.migration values (999, 'later')", named(url))
    [first, *_] = found(url)
    assert (first.level, first.fix) == ("problem", "update this gateway")


def test_clocks_that_differ_and_too_few_connections(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.database()
    real = time.time
    monkeypatch.setattr(database.time, "time", lambda: real() - 60)
    monkeypatch.setattr(database, "_NEEDED", 10_000)
    clock, connections = found(url)[-2:]
    assert "is 60 s ahead of this machine's" in clock.text
    assert "max_connections" in connections.fix
