"""What the fake model says in a trial."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.openai_server import CallTools, Say
from tests.faults.world import reply

TOOLS = [{"type": "function", "function": {"name": "stamp", "parameters": {}}}]


def asked(text: str, **members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **members}


def test_it_calls_the_tool_that_is_asked_for() -> None:
    assert reply(asked("please stamp term0w1", tools=TOOLS)) == CallTools([("stamp", {"word": "term0w1"})])


@pytest.mark.parametrize("members", [{}, {"tools": []}])
def test_it_writes_a_summary_of_who_asked_for_the_tool(members: dict[str, Any]) -> None:
    said = reply(asked("Person: please stamp term0w1\n\nThe summary:", **members))
    assert isinstance(said, Say)
    assert "term0w1" in said.text
