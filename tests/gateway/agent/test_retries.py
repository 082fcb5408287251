"""When a model is asked once more, and after how long."""

import pytest

from gateway.agent.endpoint import Limits
from gateway.agent.model_errors import BadRequest, EmptyReply, ModelError, ModelServerFault, RateLimited
from gateway.agent.retries import Retries


def pauses(*errors: ModelError, limits: Limits = Limits(), step: float = 0.0) -> list[float | None]:  # noqa: B008 - immutable
    retries = Retries(limits, 100.0)
    return [retries.pause(error, 100.0 + step * number) for number, error in enumerate(errors)]


def test_there_is_more_time_between_later_tries() -> None:
    first, second, third, last = pauses(*[ModelServerFault("500")] * 4)
    assert first is not None
    assert second is not None
    assert third is not None
    assert 0.5 <= first <= 1.0 <= second <= 1.5 < 2.0 <= third <= 2.5
    assert last is None


def test_what_cannot_help_is_not_tried() -> None:
    assert pauses(BadRequest("400")) == [None]


def test_an_empty_reply_is_tried_once_more() -> None:
    first, second = pauses(EmptyReply(""), EmptyReply(""))
    assert first
    assert second is None


@pytest.mark.parametrize(("asked", "pause"), [(20.0, 20.0), (60.0, 60.0), (60.1, None), (0.0, 0.5)])
def test_what_the_server_asks_for_is_obeyed_up_to_a_minute(asked: float, pause: float | None) -> None:
    [got] = pauses(RateLimited("429", retry_after=asked))
    assert got == pause if pause != 0.5 else got is not None and 0.5 <= got <= 1


def test_no_try_begins_after_the_budget() -> None:
    first, second = pauses(*[ModelServerFault("500")] * 2, limits=Limits(budget=5.0), step=4.5)
    assert first
    assert second is None
