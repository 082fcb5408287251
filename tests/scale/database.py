"""The database behind the nodes, looked at from outside: what is stored, who wrote it, who held what when.

Triggers of our own note each event with the database user that wrote it (every node has one) and the owner
that its session had at that moment, each change of an owner, and each beat that was late: nothing here is the
gateway's own word.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import asyncpg

_AUDIT = """
create schema audit;
create table audit.written (session bigint, seq bigint, owner bigint, epoch bigint, writer text);
create table audit.claim (session bigint, owner bigint, epoch bigint, at timestamptz);
create table audit.late (name text, since timestamptz, at timestamptz);
create function audit.write() returns trigger language plpgsql as $$
begin
    insert into audit.written
    select fresh.session, fresh.seq, session.owner, session.epoch, session_user
    from fresh join lunar.session on session.key = fresh.session;
    return null;
end $$;
create function audit.claim() returns trigger language plpgsql as $$
begin
    if new.owner is not null then
        insert into audit.claim values (new.key, new.owner, new.epoch, clock_timestamp());
    end if;
    return null;
end $$;
create function audit.late() returns trigger language plpgsql as $$
begin
    insert into audit.late values (new.name, old.beat, new.beat);
    return null;
end $$;
create trigger audit_late after update of beat on lunar.node
    for each row when (new.beat - old.beat > interval '3 seconds') execute function audit.late();
create trigger audit after insert on lunar.event referencing new table as fresh
    for each statement execute function audit.write();
create trigger audit_new after insert on lunar.session for each row execute function audit.claim();
create trigger audit_owner after update of owner on lunar.session
    for each row when (new.owner is distinct from old.owner) execute function audit.claim();
"""


class Written(NamedTuple):
    """One stored event: the node that wrote it, and the one that held its session."""

    session: str
    seq: int
    writer: str
    owner: str | None
    epoch: int
    line: bytes


class Claim(NamedTuple):
    """A session became an incarnation's, at a time of the database's clock."""

    session: str
    incarnation: int
    at: float


class Late(NamedTuple):
    """A node was not heard of for more than half of the time after which it is declared dead."""

    node: int
    begin: float
    end: float


class Rows:
    """Looks at the database with a connection of its own, and at another one once it has `moved`."""

    def __init__(self, *urls: str) -> None:
        self._urls = list(urls)
        self._connection: asyncpg.Connection | None = None
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Rows:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._connection is not None:
            self._connection.terminate()

    def moved(self) -> None:
        """From now on the next address is the one to ask."""
        self._urls.pop(0)
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        async with self._one_at_a_time:
            if self._connection is None:
                self._connection = await asyncpg.connect(self._urls[0], timeout=20, command_timeout=60)
            return await self._connection.fetch(query, *arguments)

    async def people(self, count: int) -> None:
        """A user for each node, so that a row tells who wrote it."""
        for number in range(count):
            await self._fetch(f"create role n{number} superuser login")

    async def audit(self) -> None:
        """Note from now on who writes what; after the first node made its tables."""
        await self._fetch("select 1")
        assert self._connection is not None
        await self._connection.execute(_AUDIT)

    async def now(self) -> float:
        """The database's clock."""
        (row,) = await self._fetch("select extract(epoch from clock_timestamp())::float8 as now")
        return float(row["now"])

    async def transcripts(self) -> dict[str, bytes]:
        """Every session's lines, each ended as in a file."""
        rows = await self._fetch(
            "select s.id, string_agg(e.line || '\\x0a'::bytea, ''::bytea order by e.seq) as lines "
            "from lunar.session s join lunar.event e on e.session = s.key group by s.key, s.id"
        )
        return {bytes(row["id"]).decode(): bytes(row["lines"]) for row in rows}

    async def written(self) -> list[Written]:
        """Every event that was noted, by session, in order."""
        rows = await self._fetch(
            "select s.id, w.seq, w.writer, n.name as owner, w.epoch, e.line from audit.written w "
            "join lunar.session s on s.key = w.session "
            "join lunar.event e on e.session = w.session and e.seq = w.seq "
            "left join lunar.node n on n.id = w.owner order by w.session, w.seq"
        )
        return [
            Written(
                bytes(row["id"]).decode(),
                row["seq"],
                row["writer"],
                row["owner"],
                row["epoch"],
                bytes(row["line"]),
            )
            for row in rows
        ]

    async def claims(self) -> list[Claim]:
        """Every change of an owner that was noted, oldest first."""
        rows = await self._fetch(
            "select s.id, c.owner, extract(epoch from c.at)::float8 as at "
            "from audit.claim c join lunar.session s on s.key = c.session order by c.at"
        )
        return [Claim(bytes(row["id"]).decode(), row["owner"], row["at"]) for row in rows]

    async def late(self) -> list[Late]:
        """The silences that were noted, of nodes that went on by themselves afterwards."""
        rows = await self._fetch(
            "select name, extract(epoch from since)::float8 as begin, extract(epoch from at)::float8 as end"
            " from audit.late order by at"
        )
        return [Late(int(row["name"].removeprefix("n")), row["begin"], row["end"]) for row in rows]

    async def state(self, session: str) -> str:
        """What the database says of a session, and of the nodes: for the message of a failed trial."""
        of = await self._fetch(
            "select key, seq, owner, epoch, open, unseen, modified from lunar.session where id = $1",
            session.encode(),
        )
        nodes = await self._fetch(
            "select id, name, clock_timestamp() - beat as age, dead from lunar.node order by id"
        )
        lines = await self._fetch(
            "select e.seq, w.writer, w.epoch, e.line from lunar.event e "
            "join lunar.session s on s.key = e.session "
            "left join audit.written w on w.session = e.session and w.seq = e.seq "
            "where s.id = $1 order by e.seq desc limit 8",
            session.encode(),
        )
        return "\n".join(map(str, [*of, *nodes, *lines]))

    async def held(self, name: str) -> frozenset[str]:
        """The sessions of the last incarnation of a node in which something is open."""
        rows = await self._fetch("select max(id) as id from lunar.node where name = $1 and not dead", name)
        open = await self._fetch("select id from lunar.session where owner = $1 and open", rows[0]["id"])
        return frozenset(bytes(row["id"]).decode() for row in open)

    async def terminate(self, user: str, *, all: bool) -> None:
        """End the connections of a user, or one of them."""
        limit = "" if all else "order by random() limit 1"
        backends = f"select pid from pg_stat_activity where usename = $1 {limit}"
        await self._fetch(f"select pg_terminate_backend(pid) from ({backends}) found", user)
