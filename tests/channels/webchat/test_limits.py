from channels.webchat.limits import GUESSES_BURST, GUESSES_SECONDS, Allowance, Guesses


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_one_every_so_often():
    clock = Clock()
    allowance = Allowance(10, 2.0, clock)
    assert [allowance.spend() for _ in range(10)] == [0.0] * 10
    assert allowance.spend() == 2.0
    clock.now += 1.5
    assert allowance.spend() == 0.5
    clock.now += 0.5
    assert allowance.spend() == 0.0
    assert allowance.spend() == 2.0


def test_what_was_not_spent_comes_back_but_never_more_than_a_burst():
    clock = Clock()
    allowance = Allowance(3, 2.0, clock)
    for _ in range(3):
        allowance.spend()
    clock.now += 1_000_000
    assert [allowance.spend() for _ in range(4)] == [0.0, 0.0, 0.0, 2.0]


def test_thirty_a_minute_sustained():
    clock = Clock()
    allowance = Allowance(10, 2.0, clock)
    allowed = 0
    for _ in range(6000):
        allowed += allowance.spend() == 0.0
        clock.now += 0.1
    assert 10 + 299 <= allowed <= 10 + 300


def test_failures_slow_an_address_down_and_nobody_else():
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(GUESSES_BURST):
        assert guesses.wait("192.0.2.1") == 0.0
        guesses.failed("192.0.2.1")
    assert guesses.wait("192.0.2.1") == GUESSES_SECONDS
    assert guesses.wait("192.0.2.2") == 0.0
    clock.now += GUESSES_SECONDS
    assert guesses.wait("192.0.2.1") == 0.0


def test_the_memory_of_failures_is_bounded():
    guesses = Guesses(Clock())
    for number in range(30_000):
        guesses.failed(f"2001:db8::{number:x}")
    assert len(guesses._failures) <= 10_000
    assert guesses.wait("2001:db8::0") == 0.0
