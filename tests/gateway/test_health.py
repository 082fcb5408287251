"""Alive and ready, and why not."""

from gateway.health import Health, Verdict


class _Storing:
    fault: str | None = None


class _Failing:
    def __init__(self) -> None:
        self.faults: dict[str, str] = {}


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
