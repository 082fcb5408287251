"""The gateway over PostgreSQL: turns per second beside the file store, what a turn asks of the database.

The nodes, the database, the model and the clients share the cores of one machine: a second node does not make
that faster. What a turn costs holds anywhere, and says what a database of another size can do.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from statistics import median
from typing import NamedTuple

import pytest

from benchmarks.pairs import Pairs, paired
from benchmarks.process import Gateway, cpu, gateway, model_server
from benchmarks.table import Row, milliseconds, row
from benchmarks.turns import PLAIN, SESSIONS, TURNS, converse
from benchmarks.wiretap import Wiretap
from tests.fakes.postgres_server import PostgresServer, binaries

NODES = 3
DATABASE = "lunar"
ALONE = 100  # turns of one session, one after the other
FEW, MANY = 100, 100_000  # sessions, of ten events each
_AT_ONCE = 10_000  # of them made by one statement
_SECONDS = 3  # of pgbench
_CLIENTS = 10  # as many connections as a node has
_NEW = (f"r{number}-" for number in count())  # names of sessions that are not there yet

# What a turn without tools asks: a message of 35 bytes, that it began, the answer to it.
_SCRIPT = """
\\set session random(1, 50)
select epoch from lunar.append(convert_to('b' || :session, 'UTF8'), 'bench', :node, true, null, null, null,
    true, 150, '{}', array[convert_to(repeat('m', 149), 'UTF8')],
    array[convert_to(gen_random_uuid()::text, 'UTF8')], array[0]) \\gset
select outcome from lunar.append(convert_to('b' || :session, 'UTF8'), 'bench', :node, true, :epoch, null,
    null, false, 150, '{}', array[convert_to(repeat('s', 149), 'UTF8')], array[]::bytea[], array[]::int[]);
select outcome from lunar.append(convert_to('b' || :session, 'UTF8'), 'bench', :node, true, :epoch, null,
    null, false, 250, '{}', array[convert_to(repeat('a', 249), 'UTF8')], array[]::bytea[], array[]::int[]);
"""
# The sessions old-N-0 from number %d to %d: a header, five questions, five answers.
_FILL = """
with made as (
    insert into lunar.session (name, id, seq, bytes)
    select convert_to('agent:main:cli:old-' || n || '-0', 'UTF8'),
        convert_to('agent:main:cli:old-' || n || '-0', 'UTF8'), 11, 1500 from generate_series(%d, %d) n
    returning key, id
), asked as (
    insert into lunar.message
    select key, convert_to('o' || k, 'UTF8'), k from made, generate_series(2, 10, 2) k
)
insert into lunar.event select key, k, convert_to(case
    when k = 1 then format('{"role":"system","name":"session","content":"%%s","format":1}',
        convert_from(id, 'UTF8'))
    when k %% 2 = 0 then format('{"role":"user","content":"a question of some words","id":"o%%s"}', k)
    else format('{"role":"assistant","content":"%%s","turn":"t%%s","answers":["o%%s"],"finish":"stop"}',
        repeat('an answer of some words ', 5), k, k - 1)
    end, 'UTF8') from made, generate_series(1, 11) k
"""


class Cost(NamedTuple):
    """What a database was asked so far, by everybody; heartbeats are not counted."""

    statements: float  # round trips
    appends: float  # of them, those that store something
    notices: float
    wal: float  # bytes that a standby gets
    kept: float  # bytes of tables and their indexes


def asked(server: PostgresServer) -> Cost:
    """By what the database says of itself."""
    found = server.sql(
        "select coalesce(sum(calls), 0),"
        " coalesce(sum(calls) filter (where query like '%lunar.append(%'), 0),"
        " coalesce(sum(rows) filter (where query like '%pg_notify(%'), 0),"
        " pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'),"
        " pg_total_relation_size('lunar.event') + pg_total_relation_size('lunar.message')"
        " from pg_stat_statements where toplevel"
        " and query not like '%lunar.beat(%' and query not like '%pg_stat_statements%'",
        DATABASE,
    )
    return Cost(*map(float, found.split("|")))


class Load:
    """Sessions that talk to some nodes, all at once; others each time, and new ones without `names`."""

    def __init__(self, *nodes: Gateway, names: Iterator[str] = _NEW) -> None:
        self._nodes = nodes
        self._names = names

    def together(self) -> float:
        """Seconds a turn, of 50 sessions."""
        began = time.perf_counter()
        asyncio.run(self._talk(SESSIONS, TURNS))
        return (time.perf_counter() - began) / (SESSIONS * TURNS)

    def alone(self) -> float:
        """Seconds that a turn takes, the median."""
        return median(asyncio.run(self._talk(1, ALONE)))

    async def _talk(self, sessions: int, turns: int) -> list[float]:
        name = next(self._names)
        each = await asyncio.gather(
            *(
                converse(self._nodes[number % len(self._nodes)].socket, f"{name}{number}", turns)
                for number in range(sessions)
            )
        )
        return [seconds for several in each for seconds in several]


class Bench:
    """A database server, a model, and the nodes that are started beside them."""

    def __init__(self, stack: ExitStack) -> None:
        self.server = PostgresServer(durable=True)
        stack.callback(self.server.close)
        self.server.start()
        self.server.sql(f"create database {DATABASE}")
        self.server.sql("create extension pg_stat_statements", DATABASE)
        self.model = stack.enter_context(model_server())
        self._stack = stack

    def files(self) -> Gateway:
        """A gateway of its own, without a database."""
        return self._stack.enter_context(gateway(self.model, None, **PLAIN))

    def node(self, name: str, database: str = DATABASE, tap: Wiretap | None = None) -> Gateway:
        """A node over a database, which is made where there is none; `tap`: by way of it."""
        if database != DATABASE:
            self.server.sql(f"create database {database}")
        url = self.server.url(database)
        told = {"LUNAR_STORE_URL": tap.url(url) if tap else url, "LUNAR_STORE__NODE": name}
        return self._stack.enter_context(gateway(self.model, None, **told, **PLAIN))


def _cpu(node: Gateway, load: Load) -> Row:
    used = cpu(node.pid)
    load.together()
    return Row("CPU of the node a turn", milliseconds((cpu(node.pid) - used) / (SESSIONS * TURNS)))


def _rate(what: str, pairs: Pairs) -> Row:
    mine, floor = (1 / median(seconds) for seconds in pairs)
    return Row(what, f"{mine:.0f}", f"{floor:.0f}", 1 / pairs.ratio)


def _costs(server: PostgresServer, tap: Wiretap, load: Load) -> list[Row]:
    """Of a turn without tools, of one session that talks to one node, and nobody watches it elsewhere."""
    load.alone()
    before, bytes_before = asked(server), tap.count
    load.alone()
    after, wire = asked(server), tap.count - bytes_before
    statements, appends, notices, wal, kept = ((b - a) / ALONE for a, b in zip(before, after, strict=True))
    return [
        Row("statements a turn", f"{statements:.2f}", aim="≤ 6"),
        Row("of them, appends", f"{appends:.2f}"),
        Row("notices a turn", f"{notices:.2f}"),
        Row("write-ahead log a turn", f"{wal:,.0f} bytes"),
        Row("tables and indexes a turn", f"{kept:,.0f} bytes"),
        Row("on the wire a turn, both directions", f"{wire / ALONE:,.0f} bytes"),
    ]


def _pgbench(server: PostgresServer) -> float:
    """Turns a second, where nobody but pgbench asks the same of the database."""
    node = server.sql("insert into lunar.node (name) values ('bench') returning id", DATABASE)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_SCRIPT)
        script.flush()
        told = subprocess.check_output(
            [
                str(binaries() / "pgbench"), "-n", "-M", "prepared", "-c", str(_CLIENTS), "-j", "2",
                "-T", str(_SECONDS), "-D", f"node={node}", "-f", script.name,
                server.url(DATABASE),
            ],
            text=True, stderr=subprocess.STDOUT,
        )  # fmt: skip
    return next(float(line.split()[2]) for line in told.splitlines() if line.startswith("tps"))


def _filled(server: PostgresServer, database: str, sessions: int) -> None:
    for first in range(1, sessions + 1, _AT_ONCE):
        server.sql(_FILL % (first, min(first + _AT_ONCE - 1, sessions)), database)
    for statement in ("vacuum analyze lunar.event", "vacuum analyze", "checkpoint"):
        server.sql(statement, database)


def _beat(server: PostgresServer, database: str) -> float:
    """Seconds that the database needs for a node's heartbeat, which looks for what is left open."""
    return float(
        server.sql(
            "select sum(total_exec_time) / sum(calls) / 1000 from pg_stat_statements"
            " where toplevel and query like '%lunar.beat(%' and dbid = "
            f"(select oid from pg_database where datname = '{database}')",
            DATABASE,
        )
    )


def _flat(bench: Bench, *, quick: bool) -> list[Row]:
    """Old sessions are gone on with: among many, and among a few."""
    sessions = {"few": FEW, "many": MANY // 10 if quick else MANY}
    loads = {}
    for name, number in sessions.items():
        loads[name] = Load(bench.node(name, name), names=(f"old-{round}-" for round in count(1)))
        _filled(bench.server, name, number)
    bench.server.sql("select pg_stat_statements_reset()", DATABASE)
    alone = paired(loads["many"].alone, loads["few"].alone, quick=quick)
    many, few = (_beat(bench.server, name) for name in ("many", "few"))
    shown = f"{sessions['many']:,} sessions of ten events (floor: {FEW})"
    return [
        row(f"a turn alone, of {shown}", alone, milliseconds, "≤ 1.2"),
        Row(
            f"the database's time for a heartbeat, of {shown}",
            milliseconds(many),
            milliseconds(few),
            many / few,
        ),
    ]


def run(*, quick: bool) -> list[Row]:
    """Measure, where there is a PostgreSQL."""
    try:
        binaries()
    except pytest.skip.Exception as reason:
        return [Row(f"skipped: {reason}", "")]
    with ExitStack() as stack:
        bench = Bench(stack)
        tap = stack.enter_context(Wiretap(bench.server.port))
        files, first = Load(bench.files()), bench.node("n0")
        one = Load(first)
        rows = [
            _rate(
                "turns a second, one node (floor: files)", paired(one.together, files.together, quick=quick)
            ),
            row(
                "a turn alone, one node (floor: files)",
                paired(one.alone, files.alone, quick=quick),
                milliseconds,
            ),
            _cpu(first, one),
            *_costs(bench.server, tap, Load(bench.node("tapped", tap=tap))),
        ]
        nodes = [first]
        for number in range(2, NODES + 1):
            nodes.append(bench.node(f"n{number}"))
            several = paired(Load(*nodes).together, one.together, quick=quick)
            rows.append(_rate(f"turns a second, {number} nodes (floor: one)", several))
        pgbench = paired(one.together, lambda: 1 / _pgbench(bench.server), quick=quick)
        rows.append(_rate("turns a second, one node (floor: pgbench, the same statements)", pgbench))
        return [*rows, *_flat(bench, quick=quick)]
