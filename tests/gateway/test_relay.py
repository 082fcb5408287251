"""What a session's feed says at its owner is shown at another node, in step with what is stored."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from channels.base import Approval, Delta, Done, Running, Started, Stored, ToolActivity, Update
from gateway.lane import Lane
from gateway.relay import Item, Mirror, Relay, Said, Snapshot, UpTo
from gateway.rules import Rules
from session import events
from session.events import Assistant, Event, Record, System, ToolCall, User
from session.ids import SessionId
from session.protocols import SharedStore
from tests.fakes.gateway import ScriptedRunner, Watcher

LOCAL = SessionId("agent:main:cli:local")
HELLO, BEGUN = User(content="Hello", id="m1"), System(name="started", turn="t1", messages=("m1",), attempt=1)
CALL = ToolCall(name="shout", args={}, call_id="c1", turn="t1")
CLOSED = Assistant(content="All of it.", turn="t1", answers=("m1",), finish="stop")
STARTED, ASKED = Started("t1", ("m1",), 1), Approval("t1", "c1", "shout", {}, "later")


class OfOthers:
    """A store in which another node writes: `write`, and whoever follows has it with the next look."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._told = 0
        self._foreign: Callable[[list[Record]], None] = lambda records: None

    def write(self, *batch: Event) -> str:
        for event in batch:
            self.records.append(Record(f"{len(self.records) + 1}.x", event, events.encode(event)[:-1]))
        return self.records[-1].cursor

    def holds(self, session: SessionId) -> bool:
        return False

    async def recent(self, session: SessionId, enough: Callable[[Record], bool]) -> list[Record]:
        return list(self.records)

    def follow(self, session: SessionId, after: str | None, on_foreign: Any, on_broken: Any) -> Any:
        self._told, self._foreign = len(self.records), on_foreign
        return self

    def catch_up(self) -> asyncio.Future[bool]:
        self._foreign(self.records[self._told :])
        self._told = len(self.records)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.set_result(True)
        return done

    def close(self) -> None:
        return


def of(store: OfOthers) -> Lane:
    shared = cast("SharedStore", store)
    return Lane(LOCAL, shared, ScriptedRunner(), asyncio.Semaphore(), Rules(), shared=shared)


@pytest.fixture
def store() -> OfOthers:
    return OfOthers()


@pytest.fixture
async def lane(store: OfOthers) -> Lane:
    made = of(store)
    await made.open()
    return made


@pytest.fixture
async def mirror(lane: Lane) -> AsyncIterator[Mirror]:
    made = Mirror(lane)
    made.begin("k1")
    yield made
    made.close()


async def settled(mirror: Mirror) -> None:
    """Wait until the mirror has looked at everything."""
    mirror.hear("k1", [UpTo(mirror.lane.conversation.cursor)])
    while mirror._items.qsize():  # noqa: ASYNC110 - no event says so
        await asyncio.sleep(0)
    await asyncio.sleep(0)


def live(watcher: Watcher) -> list[Update]:
    return [update for update in watcher.updates if not isinstance(update, Stored)]


# -- the other node ------------------------------------------------------------------------------


async def test_it_is_shown_in_the_owners_order(store: OfOthers, lane: Lane, mirror: Mirror) -> None:
    watcher = Watcher(lane)
    begun = store.write(HELLO, BEGUN)
    mirror.hear("k1", [Snapshot(None), UpTo(begun), STARTED, Said("t1", "All ", 0), Said("t1", "of", 0)])
    await settled(mirror)
    assert lane.feed.running == Running("t1", ("m1",), "All of")
    mirror.hear("k1", [UpTo(store.write(CLOSED))])
    await settled(mirror)
    shown = [STARTED, Delta("t1", "All "), Delta("t1", "of"), Done("t1", "completed", "3.x")]
    assert live(watcher) == shown
    assert [type(update) for update in watcher.updates[-2:]] == [Stored, Done]


async def test_who_comes_in_the_middle_gets_what_was_said(
    store: OfOthers, lane: Lane, mirror: Mirror
) -> None:
    cursor = store.write(HELLO, BEGUN, CALL)
    mirror.hear("k1", [Snapshot(cursor, STARTED, Running("t1", ("m1",), "A begin", (ASKED,)), 0)])
    await mirror.ready.wait()
    assert lane.feed.running == Running("t1", ("m1",), "A begin", (ASKED,))


async def test_another_snapshot_adds_only_what_is_new(store: OfOthers, lane: Lane, mirror: Mirror) -> None:
    cursor = store.write(HELLO, BEGUN)
    mirror.hear("k1", [Snapshot(cursor, STARTED, Running("t1", ("m1",), "A"), 0)])
    await settled(mirror)
    watcher = Watcher(lane)
    mirror.begin("k2")
    mirror.hear("k1", [Said("t1", "of an earlier watch", 0)])
    mirror.hear("k2", [Snapshot(cursor, STARTED, Running("t1", ("m1",), "A begin"), 0)])
    await mirror.ready.wait()
    assert live(watcher) == [Delta("t1", " begin")]


async def test_a_new_owners_attempt_begins_anew(store: OfOthers, lane: Lane, mirror: Mirror) -> None:
    cursor = store.write(HELLO, BEGUN)
    mirror.hear("k1", [Snapshot(cursor, STARTED, Running("t1", ("m1",), "A begin"), 0)])
    await settled(mirror)
    watcher = Watcher(lane)
    again = Started("t1", ("m1",), 2)
    cursor = store.write(System(name="started", turn="t1", messages=("m1",), attempt=2))
    mirror.hear("k1", [Snapshot(cursor, again, Running("t1", ("m1",), "An"), 0)])
    await settled(mirror)
    assert live(watcher) == [again, Delta("t1", "An")]
    assert lane.feed.said == "An"


async def test_what_is_late_is_passed_over(store: OfOthers, lane: Lane, mirror: Mirror) -> None:
    """An append of this node's own has brought what is stored earlier than the owner's word."""
    step = Assistant(content="Let me see.", turn="t1", finish="tool_calls")
    answered = System(name="approval", turn="t1", call_id="c1", allow=True)
    store.write(HELLO, BEGUN, step, CALL, answered)
    await lane.journal.catch_up()
    watcher = Watcher(lane)
    late: list[Item] = [STARTED, Said("t1", "Let me", 0), UpTo("3.x"), ASKED, Said("t1", "So", 1)]
    mirror.hear("k1", late)
    await settled(mirror)
    assert live(watcher) == [STARTED, Delta("t1", "So")]
    store.write(CLOSED)
    await lane.journal.catch_up()
    done = len(live(watcher))
    mirror.hear("k1", [Said("t1", "more", 1), ToolActivity("t1", "c1", "shout", "finished"), STARTED])
    await settled(mirror)
    assert len(live(watcher)) == done
    assert lane.feed.running is None


async def test_what_was_running_and_is_gone_is_over(store: OfOthers, lane: Lane, mirror: Mirror) -> None:
    mirror.hear("k1", [Snapshot(store.write(HELLO, BEGUN), STARTED, Running("t1", ("m1",), "A"), 0)])
    await settled(mirror)
    watcher = Watcher(lane)
    lane.conversation.running = None  # as after a deletion
    mirror.hear("k1", [Snapshot("2.x")])
    await settled(mirror)
    assert live(watcher) == [Done("t1", "stopped", "2.x")]


# -- the owner -----------------------------------------------------------------------------------


class Sent:
    """What a relay sends, and when something has come."""

    def __init__(self) -> None:
        self.items: list[tuple[int, str, list[Item] | None]] = []
        self._news = asyncio.Event()

    def __call__(self, session: SessionId, node: int, key: str, items: list[Item] | None) -> None:
        self.items.append((node, key, items))
        self._news.set()

    async def next(self) -> tuple[int, str, list[Item] | None]:
        while not self.items:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 10)
        return self.items.pop(0)


async def test_deltas_go_together_and_what_is_stored_says_where(store: OfOthers, lane: Lane) -> None:
    sent = Sent()
    store.write(HELLO, BEGUN)
    await lane.journal.catch_up()
    lane.feed.publish(STARTED)
    lane.feed.publish(Delta("t1", "A"))
    relay = Relay(lane, sent)
    relay.add(2, "k2")
    assert await sent.next() == (2, "k2", [Snapshot("2.x", STARTED, Running("t1", ("m1",), "A"), 0)])
    for word in " begin", "ning", ", and":
        lane.feed.publish(Delta("t1", word))
    assert sent.items == []
    assert await sent.next() == (2, "k2", [Said("t1", " beginning, and", 0)])
    lane.feed.publish(Delta("t1", " so"))
    lane.feed.publish(ASKED)
    assert await sent.next() == (2, "k2", [Said("t1", " so", 0), ASKED])
    lane.feed.publish(Delta("t1", " on"))
    relay.add(3, "k3")  # all that was said is in the snapshot, and nothing comes twice
    assert (await sent.next())[0] == 2
    text = "A beginning, and so on"
    assert await sent.next() == (
        3,
        "k3",
        [Snapshot("2.x", STARTED, Running("t1", ("m1",), text, (ASKED,)), 0)],
    )
    relay.remove(3, "k0")  # of an earlier watch
    relay.remove(2, "k2")
    lane.feed.publish(Delta("t1", "."))
    store.write(CALL, CLOSED)
    await lane.journal.catch_up()
    assert await sent.next() == (3, "k3", [UpTo("4.x")])  # the event has the rest of the text
    relay.close()
    assert await sent.next() == (3, "k3", None)
    lane.feed.publish(Delta("t2", "?"))
    assert sent.items == []
