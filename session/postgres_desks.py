"""The sessions at work in this process: their appends in order, their leases, their followers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, TypeVar

from session import postgres_append
from session.appends import Append, fulfil, refuse
from session.errors import LeaseLost, StorageError
from session.events import Event, Record
from session.ids import SessionId
from session.postgres_append import Group, Stored, grouped
from session.postgres_database import Database, HeldUp, OutcomeUnknown, Row
from session.postgres_desk import Deletion, Desk, Follower
from session.postgres_doubts import Doubts
from session.postgres_leases import Leases
from session.postgres_reading import Place, Reader, key_of

T = TypeVar("T")
_TOGETHER = 200  # appends at most in one statement
_END = 2**62


class Desks:
    """One statement of a session at a time; what comes meanwhile is stored together."""

    def __init__(
        self, database: Database, reader: Reader, leases: Leases, doubts: Doubts, node: Callable[[], int]
    ) -> None:
        self.closing = False  # set before the end: no lease is taken any more
        # The store's callbacks, all of them through `call_soon`.
        self.done: Callable[[list[float], float], None] = lambda appends, answer: None
        self.failed: Callable[[str], None] = lambda why: None
        self.wrote: Callable[[SessionId, int], None] = lambda session, owner: None  # into another node's
        self._database = database
        self._reader = reader
        self._leases = leases
        self._doubts = doubts
        self._node = node
        self._tasks: set[asyncio.Task[Any]] = set()

    def append(
        self, session: SessionId, batch: list[Event], sync: bool, leased: bool
    ) -> asyncio.Future[list[Record]]:
        """`TranscriptStore.append`."""
        stored: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        desk = self._leases.desk(session)
        desk.queue.append(Append(batch, sync, leased, stored, perf_counter()))
        self._begin(desk)
        return stored

    def delete(self, session: SessionId) -> asyncio.Future[list[bytes] | None]:
        """Remove it, behind the appends so far; raises `StorageError`."""
        done: asyncio.Future[list[bytes] | None] = asyncio.get_running_loop().create_future()
        desk = self._leases.desk(session)
        desk.queue.append(Deletion(done))
        self._begin(desk)
        return done

    async def quiet(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- one session's work ----------------------------------------------------------------------

    def _begin(self, desk: Desk) -> None:
        if not desk.busy:
            desk.busy = True
            self._task(self._work(desk))

    async def _work(self, desk: Desk) -> None:
        while desk.queue or desk.looks:
            if items := desk.next_appends(_TOGETHER):
                await self._try(items, self._store(desk, items))
            elif desk.queue and isinstance(deletion := desk.queue.pop(0), Deletion):
                await self._delete(desk, deletion)
            else:
                looks, desk.looks, follower = desk.looks, [], desk.follower
                seen = await self._try([], self._look(desk)) and follower is not None
                seen = seen and desk.follower is follower  # or it broke, and is read anew
                for look in looks:
                    if not look.done():
                        look.set_result(seen)
        desk.busy = False
        self._leases.tidy(desk)

    async def _try(self, items: list[Append], work: Coroutine[Any, Any, None]) -> bool:
        try:
            await work
        except StorageError as error:
            self._refused(error)
            refuse(items, error)
            return False
        except Exception as error:  # a defect of ours: whoever asked must hear of it and not wait
            refuse(items, error)
            return False
        return True

    def _refused(self, error: StorageError) -> None:
        """What others hold up in one session is no fault of the whole store."""
        if not isinstance(error, HeldUp):
            self.failed(str(error))

    async def _store(self, desk: Desk, items: list[Append]) -> None:
        await self._doubts.end(desk.session)
        while items:
            group, items = grouped(items)
            if group.items:
                await self._store_group(desk, group)

    async def _delete(self, desk: Desk, deletion: Deletion) -> None:
        try:
            row = await self._database.row_or_nothing("select * from lunar.remove($1)", key_of(desk.session))
        except Exception as error:
            if isinstance(error, OutcomeUnknown):
                self._doubts.add(desk.session)
            if isinstance(error, StorageError):
                self._refused(error)
            if not deletion.done.done():
                deletion.done.set_exception(error)
                deletion.done.exception()  # whoever asked may be gone
            return
        assert row is not None
        desk.forget()  # a follower goes on with what comes after this
        desk.epoch = None
        if not deletion.done.done():
            deletion.done.set_result((row["ids"] or []) if row["existed"] else None)

    async def _store_group(self, desk: Desk, group: Group) -> None:
        if group.leased and desk.epoch is None:
            await self._without_lease(desk, group)
            return
        begun, node, known, before = perf_counter(), self._node(), desk.head, desk.epoch
        try:
            answer = await postgres_append.store(self._database, desk, group, node, claim=not self.closing)
        except OutcomeUnknown:
            self._doubts.add(desk.session)
            raise
        if answer.outcome == "lost":
            self._leases.told(desk, before, None)
            await self._without_lease(desk, group)
        elif answer.outcome == "repeated" and len(group.items) > 1:
            for item in group.items:
                await self._store_group(desk, grouped([item])[0])
        elif answer.outcome == "repeated":
            refuse(group.items, answer.before())
        else:
            now = perf_counter()
            self.done([now - item.asked for item in group.items], now - begun)
            if desk.head != known:  # somebody else follows now, from another place
                answer = answer._replace(gap=[])
            self._leases.told(desk, before, answer.epoch if answer.owner == node else None)
            await self._stored(desk, group, answer, node)

    async def _without_lease(self, desk: Desk, group: Group) -> None:
        """What needs none is stored all the same."""
        lost = LeaseLost("another node runs this session's turns, or none does")
        refuse([item for item in group.items if item.leased], lost)
        if free := [item for item in group.items if not item.leased]:
            await self._store_group(desk, grouped(free)[0])

    async def _stored(self, desk: Desk, group: Group, answer: Stored, node: int) -> None:
        if answer.owner is not None and answer.owner != node:
            self.wrote(desk.session, answer.owner)
        if desk.follower:
            try:
                await self._fill(desk, answer)
            except StorageError:
                self._break(desk)  # ours are stored; what came before them has to be read anew
        end = answer.place + len(group.lines) - 1
        desk.tag, desk.head = answer.tag, max(desk.head, end) if desk.tag == answer.tag else end
        fulfil(group.items, group.records(answer.place, answer.tag))

    # -- what others store -----------------------------------------------------------------------

    async def _fill(self, desk: Desk, answer: Stored) -> None:
        """Hand over what lies between what is known and our own lines."""
        last = answer.place - 1
        if desk.tag is None and last <= 1:
            return  # the header, of a session that we have just begun
        if desk.tag not in (None, answer.tag) or last < desk.head:
            self._break(desk)
            return
        self._hand(desk, answer.tag, list(enumerate(answer.gap, desk.head + 1)))
        while desk.follower and desk.head < last:
            if not await self._fetch(desk, last) and desk.head < last:
                self._break(desk)  # it is not there any more

    async def _look(self, desk: Desk) -> None:
        """Hand over all that is new."""
        while desk.follower and await self._fetch(desk, _END):
            pass

    async def _fetch(self, desk: Desk, last: int) -> bool:
        """Hand over some of what is new, up to this line; whether there may be more."""
        follower, known = desk.follower, desk.tag is not None
        page = await self._reader.page(desk.session, desk.head, last, 200)
        if desk.follower is not follower:
            return True  # this is not for whoever follows now
        if page is None or (known and page.tag != desk.tag) or page.head < desk.head:
            if known or page:
                self._break(desk)
            return False
        self._hand(desk, page.tag, page.lines)
        return desk.head < min(last, page.head)

    def _hand(self, desk: Desk, tag: str, lines: list[tuple[int, bytes]]) -> None:
        if lines and desk.follower:
            desk.tag, desk.head = tag, lines[-1][0]
            if records := self._reader.records(desk.session, tag, lines):
                desk.follower.hand(records)

    def _break(self, desk: Desk) -> None:
        if follower := desk.follower:
            desk.follower = None
            follower.breaks()
        desk.forget()

    def follow(
        self,
        session: SessionId,
        after: str | None,
        on_foreign: Callable[[list[Record]], None],
        on_broken: Callable[[], None],
    ) -> Follower:
        """`TranscriptStore.follow`."""
        place = Place.of(after) if after is not None else None
        if (before := self._leases.desk(session).follower) is not None:
            before.close()
        desk = self._leases.desk(session)  # closing may have cleared the one before away

        def look() -> asyncio.Future[bool]:
            done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            if desk.follower is follower:
                desk.looks.append(done)
                self._begin(desk)
            else:
                done.set_result(False)
            return done

        def ended() -> None:
            if desk.follower is follower:
                desk.follower = None
                self._leases.tidy(desk)

        desk.follower = follower = Follower(on_foreign, on_broken, look, ended)
        desk.forget()
        if place is not None:
            desk.head, desk.tag = place
        return follower

    def break_all(self) -> None:
        """What was handed over may not be what is stored: after a fail-over."""
        for desk in self._leases.desks:
            self._break(desk)
            self._leases.tidy(desk)

    # -- leases ----------------------------------------------------------------------------------

    async def claim(self, session: SessionId) -> bool:
        """`TranscriptStore.claim`."""
        desk = self._leases.desk(session)
        try:
            if desk.epoch is not None and not desk.doubts:
                return True
            if self.closing or (row := await self._claimed(session)) is None:
                return False
            desk = self._leases.desk(session)
            if desk.epoch is None:
                return False
            await self._be_there(desk, row["head"], row["tag"])
            return True
        finally:
            self._leases.tidy(desk)

    async def _claimed(self, session: SessionId) -> Row | None:
        try:
            # Where something is in doubt, it must not come late under the number that holds from now on.
            row = await self._doubts.end(session)
            return row if row and self._leases.holds(session) else await self._leases.claim(session)
        except StorageError:
            self._doubts.add(session)
            raise

    async def release(self, session: SessionId) -> None:
        """`TranscriptStore.release`."""
        try:
            await self._leases.release(session)
        except StorageError:
            self._doubts.add(session)

    async def _be_there(self, desk: Desk, head: int, tag: str) -> None:
        """Know all that is stored up to this line."""
        if desk.follower is None:
            desk.head, desk.tag = head, tag
            return
        if (desk.head, desk.tag) == (head, tag):
            return
        await desk.follower.catch_up()
        if desk.follower and desk.head < head:
            raise StorageError("what others stored in a session cannot be read just now")

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
