"""The gateway over PostgreSQL: turns per second beside the file store, what a turn asks of the database.

The nodes, the database, the model and the clients share the cores of one machine: a second node does not make
that faster. What a turn costs holds anywhere, and says what a database of another size can do.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from statistics import median
from typing import NamedTuple

from benchmarks.pairs import Pairs, paired
from benchmarks.process import Gateway, cpu, gateway, model_server
from benchmarks.table import Row, milliseconds, row
from benchmarks.turns import PLAIN, SESSIONS, TURNS, converse
from benchmarks.wiretap import Wiretap
from tests.fakes.postgres_server import PostgresServer, binaries

NODES = 3
DATABASE = "lunar"
ALONE = 100  # turns of one session, one after the other
_SECONDS = 3  # of pgbench
_CLIENTS = 10  # as many connections as a node has

# What a turn without tools asks: a message of 35 bytes, that it began, the answer to it.
_ROUNDS = count()
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
    """Sessions that talk to some nodes, all at once; new ones each time."""

    def __init__(self, *nodes: Gateway) -> None:
        self._nodes = nodes

    def together(self) -> float:
        """Seconds a turn, of 50 sessions."""
        began = time.perf_counter()
        asyncio.run(self._talk(SESSIONS, TURNS))
        return (time.perf_counter() - began) / (SESSIONS * TURNS)

    def alone(self) -> float:
        """Seconds that a turn takes, the median."""
        return median(asyncio.run(self._talk(1, ALONE)))

    async def _talk(self, sessions: int, turns: int) -> list[float]:
        name = f"r{next(_ROUNDS)}-"
        each = await asyncio.gather(
            *(
                converse(self._nodes[number % len(self._nodes)].socket, f"{name}{number}", turns)
                for number in range(sessions)
            )
        )
        return [seconds for several in each for seconds in several]


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


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    with ExitStack() as stack:
        server = PostgresServer(durable=True)
        stack.callback(server.close)
        server.start()
        server.sql(f"create database {DATABASE}")
        server.sql("create extension pg_stat_statements", DATABASE)
        model = stack.enter_context(model_server())
        tap = stack.enter_context(Wiretap(server.port))

        def node(name: str, url: str) -> Gateway:
            return stack.enter_context(
                gateway(model, None, LUNAR_STORE_URL=url, LUNAR_STORE__NODE=name, **PLAIN)
            )

        files = Load(stack.enter_context(gateway(model, None, **PLAIN)))
        first = node("n0", server.url(DATABASE))
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
            *_costs(server, tap, Load(node("tapped", tap.url(server.url(DATABASE))))),
        ]
        nodes = [first]
        for number in range(2, NODES + 1):
            nodes.append(node(f"n{number}", server.url(DATABASE)))
            several = paired(Load(*nodes).together, one.together, quick=quick)
            rows.append(_rate(f"turns a second, {number} nodes (floor: one)", several))
        bench = paired(one.together, lambda: 1 / _pgbench(server), quick=quick)
        rows.append(_rate("turns a second, one node (floor: pgbench, the same statements)", bench))
    return rows
