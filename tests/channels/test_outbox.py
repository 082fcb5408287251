"""What waits for one client: in order, merged, and bounded."""

import pytest

from channels import wire
from channels.base import Delta, Done, Started, Stored
from channels.outbox import MAX_BYTES, MAX_FRAMES, Outbox
from session.events import Record, User


def _stored(size: int = 100) -> Stored:
    return Stored(Record("1.a", User(content="x"), b"x" * size))


def test_deltas_of_a_turn_that_wait_together_become_one() -> None:
    outbox = Outbox()
    outbox.put(Started("t1", ("m1",), 1))
    for text in ("a", "b", "c"):
        outbox.put(Delta("t1", text))
    outbox.put(_stored())
    outbox.put(Delta("t1", "d"))
    outbox.put(Delta("t2", "e"))
    assert outbox.take() == [
        Started("t1", ("m1",), 1),
        Delta("t1", "abc"),
        _stored(),
        Delta("t1", "d"),
        Delta("t2", "e"),
    ]


def test_what_was_taken_waits_no_longer() -> None:
    outbox = Outbox()
    assert not outbox
    outbox.put(Delta("t1", "a"))
    assert outbox
    assert outbox.take() == [Delta("t1", "a")]
    assert not outbox
    outbox.put(Delta("t1", "b"))
    assert outbox.take() == [Delta("t1", "b")]


def test_a_merged_delta_fits_into_a_frame() -> None:
    outbox = Outbox()
    for _ in range(3 * 64):
        outbox.put(Delta("t1", "😀" * 1024))
    taken = [item for item in outbox.take() if isinstance(item, Delta)]
    assert "".join(delta.text for delta in taken) == "😀" * 3 * 64 * 1024
    for delta in taken:
        assert len(wire.encode(wire.DeltaFrame(turn=delta.turn, text=delta.text))) <= wire.MAX_SERVER_FRAME


@pytest.mark.parametrize(
    ("items", "allowed"),
    [
        ([_stored()] * (MAX_FRAMES + 1), MAX_FRAMES),
        ([_stored(MAX_BYTES // 4)] * 5, 4),
        ([Delta(f"t{number}", "x" * 1024) for number in range(1025)], MAX_FRAMES),
        ([Delta("t1", "x" * 1024)] * 1025, 1024),
        ([wire.Notice(text="x" * 1024)] * 2000, MAX_FRAMES),
    ],
)
def test_a_client_that_does_not_read_is_too_slow(items: list[Stored | Delta], allowed: int) -> None:
    outbox = Outbox()
    for item in items[:allowed]:
        outbox.put(item)
    assert not outbox.overflown
    for item in items[allowed:]:
        outbox.put(item)
    assert outbox.overflown
    # What waited is let go of, and nothing more is kept.
    outbox.put(Done("t1", "completed", "1.a"))
    assert not outbox


def test_a_client_that_keeps_up_never_is() -> None:
    outbox = Outbox()
    for number in range(20):
        for _ in range(MAX_FRAMES):
            outbox.put(_stored(4000))
        assert len(outbox.take()) == MAX_FRAMES, number
    assert not outbox.overflown
