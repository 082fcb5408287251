"""The connection on which a node says that it lives, hears what others say, and speaks to them."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from session.errors import StorageError
from session.postgres_database import FAILURES, Connection, Database
from session.postgres_doubts import Owned
from session.postgres_reading import id_of

BEAT = 1.5  # seconds between two beats
ROUNDS = 4  # beats from one comparison with the table to the next
LATE = "6 seconds"  # without a beat, after which a node is declared dead by another
_EVERYBODY = "lunar_all"
_WAITING = 10_000  # notices at most that wait to be sent
_AT_ONCE = 500  # of them in one statement
_ANSWER = 3.0  # seconds to wait for an answer: half of what others wait for a beat
_AGAIN = (0.1, 0.25, 0.5, 1.0, 2.0)  # seconds until the connection is tried again


class Beat(NamedTuple):
    """What a node is told when it says that it lives; see `lunar.beat`."""

    alive: bool
    woken: list[bytes]  # ids of sessions of its own in which others wrote
    taken: list[tuple[bytes, int]]  # of sessions whose turns it runs now, and each lease's epoch


class Wire:
    """`open` makes this process a node; `run` goes on until it is cancelled."""

    def __init__(self, database: Database, name: str) -> None:
        self.node = 0
        self.room: Callable[[], int] = lambda: 0
        self.on_beat: Callable[[Beat], None] = lambda beat: None
        self.on_owned: Callable[[list[Owned]], None] = lambda owned: None  # told now and then what is ours
        self.heard: Callable[[int, str, str], None] = lambda node, kind, text: None
        # After an interruption; told whether what is stored may be another history than before.
        self.back: Callable[[bool], None] = lambda moved: None
        self.away: Callable[[str], None] = lambda why: None
        self._database = database
        self._name = name
        self._connection: Connection | None = None
        self._process = 0  # the server's, behind it: our own notices come back from there
        self._waiting: deque[tuple[str, str]] = deque()
        self._number = itertools.count()  # of what was sent: the server says only once what is the same twice
        self._overrun = False
        self._due = asyncio.Event()  # something waits, or a beat is wanted now
        self._history = ""  # the server's timeline: another one after a fail-over
        self._moved = False  # it is another one, and `back` has not said so yet

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Become a node; raises `StorageError`, `StoreUnfit`."""
        with self._database.mapped():
            await self._connect()
            await self._join()

    async def run(self) -> None:
        """Beat, send and hear; what breaks is made anew."""
        failed = 0
        while True:
            try:
                with self._database.mapped():
                    if self._connection is None or self._connection.is_closed():
                        await self._again()
                    while True:
                        for _ in range(ROUNDS):
                            await self._round()
                            failed = 0
                        await self._compare()
            except StorageError as error:
                self._waiting.clear()  # whoever waits for them is told by `back`
                self._drop()
                self.away(str(error))
                await asyncio.sleep(_AGAIN[min(failed, len(_AGAIN) - 1)])
                failed += 1

    async def close(self) -> None:
        """Send what waits and end the connection; `run` must be over."""
        try:
            if self._connection is not None:
                await self._send()
                await self._connection.close(timeout=1.0)
        except FAILURES:
            pass
        finally:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connect(self) -> None:
        """Listen, and see whether the server's history may be another one than before."""
        # What is lost here is said again, or is found out: no commit waits for the disk.
        self._connection = connection = await self._database.connect(_ANSWER, synchronous_commit="off")
        self._process = connection.get_server_pid()
        connection.add_termination_listener(lambda _: self._due.set())
        await connection.add_listener(_EVERYBODY, self._receive)
        if self.node:
            await connection.add_listener(_own(self.node), self._receive)
        history = await connection.fetchval("select left(pg_walfile_name(pg_current_wal_lsn()), 8)")
        before, self._history = self._history, history
        self._moved |= before not in ("", history)

    async def _again(self) -> None:
        await self._connect()
        await self._beat()
        await self._compare()
        moved, self._moved = self._moved, False
        self.back(moved)

    async def _compare(self) -> None:
        """Of what was taken, the answer may have been lost; what was lost may be carried out late."""
        assert self._connection is not None
        rows = await self._connection.fetch(
            "select id, epoch, seq from lunar.session where owner = $1", self.node
        )
        self.on_owned([Owned(id_of(row["id"]), row["epoch"], row["seq"]) for row in rows])

    async def _join(self) -> None:
        """Take a new incarnation."""
        assert self._connection is not None
        if self.node:
            await self._connection.remove_listener(_own(self.node), self._receive)
        self.node = await self._connection.fetchval(
            "insert into lunar.node (name) values ($1) returning id", self._name
        )
        await self._connection.add_listener(_own(self.node), self._receive)

    # -- one round -------------------------------------------------------------------------------

    async def _round(self) -> None:
        """Beat once, then send what there is until the next one is due."""
        await self._beat()
        loop = asyncio.get_running_loop()
        due = loop.time() + BEAT
        while (left := due - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):  # `wait_for` may swallow the cancellation that ends us
                    await self._due.wait()
            except TimeoutError:
                return
            self._due.clear()
            if not self._waiting:
                return  # a beat is wanted now
            await self._send(due)

    async def _beat(self) -> None:
        assert self._connection is not None
        row = await self._connection.fetchrow(
            f"select * from lunar.beat($1, $2, interval '{LATE}')", self.node, self.room()
        )
        assert row is not None
        if not row["alive"]:
            await self._join()
        taken = list(zip(row["taken"] or (), row["epochs"] or (), strict=True))
        self.on_beat(Beat(row["alive"], row["woken"] or [], taken))

    async def _send(self, until: float = float("inf")) -> None:
        """Send what waits; what still does at this time of the loop's has to wait for a beat."""
        assert self._connection is not None
        clock = asyncio.get_running_loop().time
        while self._waiting and clock() < until:
            some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            await self._connection.execute(
                "select pg_notify(c, p) from unnest($1::text[], $2::text[]) as given (c, p)",
                [channel for channel, _ in some],
                [text for _, text in some],
            )
        if self._waiting:
            self._due.set()
        elif self._overrun:
            self._overrun = False
            self.back(False)

    # -- notices ---------------------------------------------------------------------------------

    def send(self, node: int | None, kind: str, text: str) -> None:
        """Send to a node, or to all others; dropped where there is no connection."""
        if self._connection is None:
            return
        if len(self._waiting) >= _WAITING:
            self._waiting.clear()
            self._overrun = True
        self._waiting.append(
            (
                _EVERYBODY if node is None else _own(node),
                f"{self.node:x} {next(self._number):x} {kind} {text}",
            )
        )
        self._due.set()

    def beat_now(self) -> None:
        """Do not wait for the next beat's time."""
        self._due.set()

    def _receive(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        if pid == self._process or connection is not self._connection:
            return  # what an old one still had says nothing that `back` does not
        node, _, kind, text = str(payload).split(" ", 3)
        self.heard(int(node, 16), kind, text)


def _own(node: int) -> str:
    """A node's own channel."""
    return f"lunar_{node}"
