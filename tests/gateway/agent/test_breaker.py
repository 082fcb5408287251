"""When a model is passed over, and when it is tried again."""

import pytest

from gateway.agent.breaker import FAILURES, Breaker
from session.ids import SessionId

A, B, C = (SessionId(f"agent:main:cli:{name}") for name in "abc")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, *sessions: SessionId, general: bool = False) -> list[float | None]:
    return [breaker.failed(session, "503", general=general) for session in sessions]


def test_failures_of_several_sessions_open_it_once(breaker: Breaker) -> None:
    assert fail(breaker, A, B) == [None, None]
    assert (breaker.state, breaker.passes_over) == ("closed", False)
    assert fail(breaker, A) == [30.0]
    assert (breaker.state, breaker.passes_over, breaker.why) == ("open", True, "503")
    assert fail(breaker, B, C) == [None, None]


def test_one_session_cannot_open_it(breaker: Breaker) -> None:
    assert fail(breaker, *[A] * 1000) == [None] * 1000
    assert breaker.state == "closed"


def test_one_session_that_floods_does_not_hide_the_others(breaker: Breaker) -> None:
    fail(breaker, *[A] * 1000)
    assert fail(breaker, B) == [30.0]


def test_failures_to_connect_open_it_whoever_saw_them(breaker: Breaker) -> None:
    assert fail(breaker, *[A] * FAILURES, general=True) == [None, None, 30.0]


def test_a_success_in_between_begins_anew(breaker: Breaker) -> None:
    fail(breaker, A, B)
    assert not breaker.succeeded()
    assert fail(breaker, A, B) == [None, None]
    assert breaker.state == "closed"


def test_old_failures_are_forgotten(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, A, B)
    clock.now += 301
    assert fail(breaker, A, B) == [None, None]
    assert breaker.state == "closed"


def test_one_question_at_a_time_finds_out(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, A, B, C)
    clock.now += 30
    assert (breaker.state, breaker.passes_over) == ("half-open", False)
    breaker.begin()
    assert breaker.passes_over
    breaker.end()  # it was stopped: nothing is known
    assert not breaker.passes_over
    breaker.begin()
    assert breaker.succeeded()
    breaker.end()
    assert (breaker.state, breaker.passes_over, breaker.why) == ("closed", False, "")


def test_each_time_that_it_fails_again_the_pause_is_longer(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, A, B, C)
    for pause in (60, 120, 240, 300, 300):
        clock.now = breaker._until
        assert breaker.state == "half-open"
        assert fail(breaker, A) == [None]  # said once, when it was opened
        assert breaker._until - clock.now == pause
        assert breaker.state == "open"
    clock.now = breaker._until
    breaker.succeeded()
    assert fail(breaker, A, B, C) == [None, None, 30.0]
