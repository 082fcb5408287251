"""Publish and subscribe within one session."""

from channels.base import Delta, Done, Running, Started, Stored, Update
from gateway.feed import Feed
from session.events import Assistant, Event, Record, User

STARTED = Started("t1", ("m1",), 1)


def stored(event: Event) -> Stored:
    return Stored(Record("1.a", event, b"{}"))


def test_a_newcomer_gets_what_was_said_since_the_last_stored_event() -> None:
    feed = Feed()
    assert feed.watch(lambda _: None, None).running is None
    feed.publish(STARTED)
    assert feed.running == Running("t1", ("m1",), "")
    feed.publish(Delta("t1", "Let me "))
    feed.publish(stored(User(content="in between", id="m2")))
    feed.publish(Delta("t1", "see."))
    assert feed.watch(lambda _: None, "c").running == Running("t1", ("m1",), "Let me see.")
    feed.publish(stored(Assistant(content="Let me see.", finish="tool_calls")))
    assert feed.running == Running("t1", ("m1",), "")
    feed.publish(Delta("t1", "It is late."))
    feed.publish(Started("t1", ("m1",), 2))
    assert feed.said == ""
    feed.publish(Done("t1", "completed", "1.a"))
    assert feed.running is None


def test_watchers_hear_everything_in_order_until_they_leave() -> None:
    feed = Feed()
    heard: list[Update] = []
    watch = feed.watch(heard.append, "c")
    updates: list[Update] = [STARTED, Delta("t1", "a"), Delta("t1", "b")]
    for update in updates:
        feed.publish(update)
    watch.close()
    watch.close()
    feed.publish(Delta("t1", "c"))
    assert heard == updates


def test_a_watcher_that_fails_is_dropped_and_nobody_else() -> None:
    feed = Feed()
    heard: list[Update] = []
    calls = 0

    def fails(update: Update) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("a defect of a channel")

    feed.watch(fails, None)
    feed.watch(heard.append, None)
    feed.publish(STARTED)
    feed.publish(Delta("t1", "a"))
    assert calls == 1
    assert len(heard) == 2


def test_a_watcher_may_leave_while_it_is_told() -> None:
    feed = Feed()
    heard: list[Update] = []
    leaving = feed.watch(lambda _: leaving.close(), None)
    feed.watch(heard.append, None)
    feed.publish(STARTED)
    feed.publish(STARTED)
    assert len(heard) == 2
