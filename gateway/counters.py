"""What is counted while the gateway works; `gateway.metrics` writes it down when somebody asks.

Plain numbers, so that counting costs nothing worth counting and no library is imported for it. Only the event
loop's thread counts. Labels are words of ours or of the configuration: no ids, no texts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally

# Seconds. Turns last from a demo's instant to the wall limit; disks from NVMe to a card that sulks.
_TURN = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_DISK = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Counter:
    """Something that only grows, by the values of its labels."""

    def __init__(self, name: str, help: str, labels: tuple[str, ...] = ()) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.values: Tally[tuple[str, ...]] = Tally()

    def add(self, *labels: str, by: float = 1) -> None:
        """Count one more, or `by` more."""
        self.values[labels] += by  # type: ignore[assignment]  # a Tally adds up money just as well


class Histogram:
    """How often something took how long: the last of `counts` is of what was above every bound."""

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.help = help
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one that took so long."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


TURNS = Counter("turns", "Turns that ended.", ("agent", "outcome"))
MODEL_CALLS = Counter("model_calls", "Requests to models.", ("model",))
MODEL_ERRORS = Counter("model_errors", "Requests that a model did not answer wholly.", ("model", "defect"))
TOKENS = Counter("tokens", "Tokens used, as stored.", ("agent", "direction"))
COST = Counter("cost", "Money used, in the unit of the configured prices.", ("agent",))
REFUSED = Counter("budget_refusals", "Times that a budget kept a model from being asked.", ("agent",))
COUNTERS = (TURNS, MODEL_CALLS, MODEL_ERRORS, TOKENS, COST, REFUSED)

TURN_SECONDS = Histogram("turn_seconds", "From a turn's begin to its end, waiting included.", _TURN)
FIRST_TOKEN_SECONDS = Histogram("first_token_seconds", "From a turn's begin to its first word.", _TURN)
APPEND_SECONDS = Histogram("append_seconds", "From an append to its being stored.", _DISK)
SYNC_SECONDS = Histogram("fsync_seconds", "One fdatasync.", _DISK)
LOOP_LAG_SECONDS = Histogram("loop_lag_seconds", "How much too late the event loop woke.", _DISK)
HISTOGRAMS = (TURN_SECONDS, FIRST_TOKEN_SECONDS, APPEND_SECONDS, SYNC_SECONDS, LOOP_LAG_SECONDS)


def append_timed(appends: list[float], sync: float | None) -> None:
    """For `Store.timed`."""
    for seconds in appends:
        APPEND_SECONDS.observe(seconds)
    if sync is not None:
        SYNC_SECONDS.observe(sync)
