"""Random lives of two nodes over one database, beside a dictionary of lists."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from session.errors import BadCursor, LeaseLost, Repeated
from session.events import Event, Record, System, User
from session.ids import SessionId
from session.postgres import PostgresStore
from tests.fakes.postgres_server import shared
from tests.session.kinds import Postgres
from tests.session.postgres_nodes import Heard
from tests.session.strategies import texts

T = TypeVar("T")
SESSIONS = [SessionId(f"agent:main:cli:{name}") for name in ("\ud800\0", "x" * 400)]
sessions = st.sampled_from(SESSIONS)
which = st.integers(0, 1)


class Nodes(RuleBasedStateMachine):
    """What is acknowledged stays, in one order, for both; each follower gets what is not its own, once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="lunar-nodes-"))
        self.home = Postgres(self.folder)
        self.model: dict[SessionId, list[Record]] = {}
        self.holder: dict[SessionId, int] = {}
        self.gone: list[tuple[SessionId, str]] = []
        self.heard: dict[tuple[int, SessionId], tuple[Heard, int]] = {}  # and how long the session was then
        self.mine: dict[tuple[int, SessionId], set[str]] = {}  # cursors of what a follower's node stored
        self.count = 0

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            async with asyncio.timeout(60):
                return await work

        return self.loop.run_until_complete(wait())

    @initialize()
    def begin(self) -> None:
        self.stores = [self.run(self.home.open(name)) for name in "ab"]

    def teardown(self) -> None:
        for store in getattr(self, "stores", ()):
            self.run(store.close())
        self.loop.close()
        shared().sql(f"drop database {self.home.url.rpartition('/')[2]} with (force)")
        shutil.rmtree(self.folder)

    def store(self, node: int) -> PostgresStore:
        return self.stores[node]

    # -- writing ---------------------------------------------------------------------------------

    def kept(self, node: int, of: SessionId, records: list[Record]) -> None:
        known = self.model.get(of, [])
        if not known and records:
            known = self.run(self.store(node).after(of, None, 1))  # the header
            self.mine.setdefault((node, of), set()).update(record.cursor for record in known)
        self.model[of] = known + records
        self.mine.setdefault((node, of), set()).update(record.cursor for record in records)

    @rule(node=which, of=sessions, asked=st.booleans(), text=texts, size=st.integers(1, 3))
    def append(self, node: int, of: SessionId, asked: bool, text: str, size: int) -> None:
        self.count += 1
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        batch: list[Event] = [
            User(content=text, id=f"m{self.count}.{part}") if asked else System(name="note", content=text)
            for part in range(size)
        ]

        async def work() -> list[Record]:
            return await self.store(node).append(of, batch)

        self.kept(node, of, self.run(work()))
        self.holder.setdefault(of, node)

    @rule(node=which, of=sessions)
    def append_under_the_lease(self, node: int, of: SessionId) -> None:
        async def work() -> list[Record]:
            return await self.store(node).append(of, [System(name="note", content="leased")], leased=True)

        if self.holder.get(of) == node:
            self.kept(node, of, self.run(work()))
        else:
            with pytest.raises(LeaseLost):
                self.run(work())

    @rule(of=sessions, count=st.integers(1, 6))
    def append_by_both_at_once(self, of: SessionId, count: int) -> None:
        async def work() -> list[list[Record]]:
            return await asyncio.gather(
                *(
                    self.store(number % 2).append(of, [System(name="note", content=f"{number}")])
                    for number in range(count)
                )
            )

        known = len(self.model.get(of, []))
        stored = self.run(work())
        self.model[of] = self.run(self.store(0).after(of, None, 100_000))
        new = self.model[of][known:]
        for number, records in enumerate(stored):
            self.mine.setdefault((number % 2, of), set()).update(record.cursor for record in records)
            assert all(record in new for record in records)
        if not known:  # the header is of the one that was first, and is handed over to nobody who began it
            for node in (0, 1):
                self.mine.setdefault((node, of), set()).add(new[0].cursor)
            self.heard = {key: value for key, value in self.heard.items() if key[1] != of}
        if of not in self.holder:
            self.holder[of] = next(node for node in (0, 1) if self.store(node).holds(of))

    @precondition(lambda self: self.model)
    @rule(node=which, data=st.data())
    def append_again(self, node: int, data: st.DataObject) -> None:
        of = data.draw(st.sampled_from(sorted(self.model)))
        asked = [record for record in self.model[of] if isinstance(record.event, User)]
        if asked:
            record = data.draw(st.sampled_from(asked))

            async def work() -> list[Record]:
                return await self.store(node).append(of, [record.event])

            with pytest.raises(Repeated) as told:
                self.run(work())
            assert told.value.record == record

    @rule(node=which, of=sessions)
    def delete(self, node: int, of: SessionId) -> None:
        assert self.run(self.store(node).delete(of)) == (of in self.model)
        self.gone += [(of, record.cursor) for record in self.model.pop(of, [])[-2:]]
        self.holder.pop(of, None)
        for other in (0, 1):
            self.heard.pop((other, of), None)
            self.mine.pop((other, of), None)

    # -- leases ----------------------------------------------------------------------------------

    @rule(node=which, of=sessions)
    def claim(self, node: int, of: SessionId) -> None:
        free = of in self.model and self.holder.get(of, node) == node
        # Who held a session that the other deleted learns of it with its next append.
        if of in self.model or not self.store(node).holds(of):
            assert self.run(self.store(node).claim(of)) == free
        if free:
            self.holder[of] = node

    @rule(node=which, of=sessions)
    def release(self, node: int, of: SessionId) -> None:
        self.run(self.store(node).release(of))
        if self.holder.get(of) == node:
            del self.holder[of]

    # -- following and reading -------------------------------------------------------------------

    @rule(node=which, of=sessions)
    def follow(self, node: int, of: SessionId) -> None:
        known = self.model.get(of, [])
        self.heard[node, of] = (Heard(self.store(node), of, known[-1].cursor if known else None), len(known))
        self.mine[node, of] = set()

    @precondition(lambda self: self.heard)
    @rule()
    def catch_up(self) -> None:
        for (node, of), (heard, begun) in self.heard.items():

            async def work(heard: Heard = heard) -> None:
                await heard.following.catch_up()
                await asyncio.sleep(0)

            self.run(work())
            mine = self.mine[node, of]
            assert heard.records == [one for one in self.model.get(of, [])[begun:] if one.cursor not in mine]
            assert not heard.broken

    @rule(of=sessions, first=which, sizes=st.lists(st.integers(0, 3), min_size=2, max_size=5))
    def talk(self, of: SessionId, first: int, sizes: list[int]) -> None:
        """One speaks, then the other, and each hears the other before itself."""
        for node in (0, 1):
            if (node, of) not in self.heard:
                self.follow(node, of)
        for place, size in enumerate(sizes):
            for _ in range(size):
                self.append((first + place) % 2, of, False, str(place), 1)
        self.catch_up()

    @rule(node=which, of=sessions, limit=st.integers(1, 8), data=st.data())
    def read(self, node: int, of: SessionId, limit: int, data: st.DataObject) -> None:
        known = self.model.get(of, [])
        place = data.draw(st.integers(0, len(known)))
        cursor = known[place - 1].cursor if place else None
        assert self.run(self.store(node).after(of, cursor, limit)) == known[place : place + limit]
        if cursor:
            assert (
                self.run(self.store(node).before(of, cursor, limit)) == known[max(0, place - limit) : place]
            )
        assert self.run(self.store(node).recent(of, lambda record: False)) == known

    @precondition(lambda self: self.gone)
    @rule(node=which, data=st.data())
    def read_what_is_gone(self, node: int, data: st.DataObject) -> None:
        of, cursor = data.draw(st.sampled_from(self.gone))
        if self.model.get(of):
            with pytest.raises(BadCursor):
                self.run(self.store(node).after(of, cursor, 5))

    @rule(node=which)
    def list_all(self, node: int) -> None:
        assert {entry.session for entry in self.run(self.store(node).listing())} == self.model.keys()

    @rule(node=which)
    def restart(self, node: int) -> None:
        self.run(self.stores[node].close())
        self.stores[node] = self.run(self.home.open("ab"[node]))
        self.holder = {of: holder for of, holder in self.holder.items() if holder != node}
        for key in [key for key in self.heard if key[0] == node]:
            del self.heard[key]

    @invariant()
    def nobody_runs_what_another_runs(self) -> None:
        for of, holder in self.holder.items():
            assert self.store(holder).holds(of)


Nodes.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestNodes = Nodes.TestCase
