"""Alive and ready, and why not."""

from gateway.health import Health, Verdict
from gateway.redaction import known


class _Storing:
    fault: str | None = None


class _Failing:
    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self.remarks: dict[str, str] = {}


def test_all_is_well_until_something_is_not() -> None:
    store, channels, models = _Storing(), _Failing(), _Failing()
    health = Health(store, channels, models)
    assert health.live() == health.ready() == Verdict(True, {})
    channels.faults["telegram"] = "no route"
    models.faults["default"] = "401"
    assert health.live().ok
    assert health.ready() == Verdict(False, {"channel telegram": "no route", "model default": "401"})
    store.fault = "No space left on device"
    assert health.live() == Verdict(False, {"store": "No space left on device"})
    assert health.ready().why["store"] == "No space left on device"


def test_whoever_is_draining_lives_and_is_not_ready() -> None:
    health = Health(_Storing(), _Failing(), _Failing())
    health.draining = True
    assert health.live().ok
    assert health.ready() == Verdict(False, {"gateway": "shutting down"})


def test_one_line_has_every_channel_and_what_else_is_wrong() -> None:
    store, channels, models = _Storing(), _Failing(), _Failing()
    health = Health(store, channels, models)
    assert health.line({"cli": "ready", "http": "ready"}) == "cli: ready; http: ready"
    channels.faults["telegram"] = "no route"
    store.fault = "No space left on device"
    health.draining = True
    assert health.line({"cli": "ready", "telegram": "no route"}) == (
        "store: No space left on device; gateway: shutting down; cli: ready; telegram: no route"
    )


def test_no_secret_is_told_in_the_words_of_others() -> None:
    known.learn(["canary-of-health"])
    store, channels, models = _Storing(), _Failing(), _Failing()
    health = Health(store, channels, models)
    store.fault = "canary-of-health: full"
    channels.faults["telegram"] = "https://anna:hunter2@proxy.example.org refused"
    models.faults["default"] = "Incorrect key sk-0123456789abcdef0123"
    health.remarks = {"config": "token canary-of-health"}
    told = f"{health.live()} {health.ready()} {health.line({'cli': 'canary-of-health'})}"
    assert not any(secret in told for secret in ("canary-of-health", "hunter2", "sk-0123"))
