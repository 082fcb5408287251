"""What nodes say to each other arrives as it was said, however long it is."""

import pytest

from channels.base import Answer, Approval, Running, Started
from channels.errors import Refused
from gateway import notices
from gateway.notices import Assembly, Command, News, Refusal, Reply, Request
from gateway.relay import Said, Snapshot, UpTo
from session.protocols import NOTICE_BYTES

SESSION = "agent:main:cli:lüna\ud800\0"
LONG = "❦\ud83d \0\n" * 4000


def received(sender: int, assembly: Assembly, notice: notices.Notice) -> notices.Notice | None:
    whole = None
    for part in notices.parts(notice):
        assert part.isascii()
        assert "\0" not in part
        assert len(part) <= NOTICE_BYTES
        assert whole is None
        whole = assembly.take(sender, part)
    return whole


@pytest.mark.parametrize(
    "notice",
    [
        notices.Here(),
        notices.Watch(SESSION, "k1"),
        News(SESSION, "k1", None),
        News(SESSION, "k1", [Said("t1", LONG, 0), UpTo("5.x"), Started("t1", ("m1",), 2)]),
        News(
            SESSION,
            "k1",
            [
                Snapshot(
                    None,
                    Started("t1", ("m1",), 1),
                    Running(
                        "t1", ("m1",), LONG, (Approval("t1", "c1", "shout", {"text": [LONG, 1.5, None]}, ""),)
                    ),
                )
            ],
        ),
        Request(1, SESSION, Command("model", LONG, "m1", True)),
        Reply(1, Answer(LONG)),
        Reply(2, Refusal.of(Refused("rate_limited", "Wait.", retry_after=2.5))),
    ],
)
def test_a_notice_arrives_as_it_was_said(notice: notices.Notice) -> None:
    assert received(7, Assembly(), notice) == notice


def test_parts_of_several_senders_may_come_mixed() -> None:
    assembly = Assembly()
    first, second = News("a", "k", [Said("t", LONG, 0)]), News("b", "k", [Said("t", LONG, 1)])
    told: list[notices.Notice] = []
    for one, other in zip(notices.parts(first), notices.parts(second), strict=True):
        told += [whole for whole in (assembly.take(1, one), assembly.take(2, other)) if whole]
    assert told == [first, second]


def test_a_notice_with_a_gap_is_dropped_and_the_next_one_is_not() -> None:
    assembly = Assembly()
    parts = list(notices.parts(News("a", "k", [Said("t", LONG, 0)])))
    assert len(parts) > 2
    for part in (*parts[:1], *parts[2:]):
        assert assembly.take(1, part) is None
    assert received(1, assembly, notices.Here()) == notices.Here()
    whole = News("a", "k", [Said("t", LONG, 2)])
    assert received(1, assembly, whole) == whole


@pytest.mark.parametrize("text", ["", "1/2", "x/0/1:{}", '{"type":"Nothing"}', "{"])
def test_what_is_no_notice_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError):
        Assembly().take(1, text)


def test_a_refusal_is_the_same_at_the_other_node() -> None:
    error = Refusal.of(Refused("rate_limited", "Wait.", retry_after=2.5)).error()
    assert (error.code, error.public, error.retry_after) == ("rate_limited", "Wait.", 2.5)
