"""A daemon that is killed while a tool asks: it asks anew, and runs nothing that nobody allowed."""

from pathlib import Path
from typing import Any

from tests.fakes.openai_server import CallTools
from tests.fakes.stopping import Stopping

LOCAL = "agent:main:cli:local"
CALL = CallTools([("asks", {"path": "everything"})])


def of_role(events: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    return [event for event in events if event["role"] == role]


async def test_a_kill_while_a_tool_asks(folder: Path) -> None:
    async with Stopping(folder / "a") as on:
        for answered in (False, True):
            on.openai.script(CALL)
            await on.client.send("message", id=f"m{answered:d}", text="Delete everything")
            first = await on.client.until("approval")
            await on.daemon.kill()
            on.openai.script(CALL)
            await on.daemon.start()
            on.client = await on.daemon.client()
            again = await on.client.until("approval")
            assert (again["turn"], again["args"]) == (first["turn"], {"path": "everything"})
            assert again["call_id"] != first["call_id"]
            stale = await _error(on, first["call_id"])
            assert stale["code"] == "not_found"
            if answered:
                await on.client.send("approve", call_id=again["call_id"], allow=True)
            else:
                await on.client.command("/no")
            await on.client.until("done")
        events = on.daemon.events(LOCAL)
        assert [event["ok"] for event in of_role(events, "tool_result")] == [False, False, False, True]
        assert [event["result"] for event in of_role(events, "tool_result")][-1] == "deleted"
        allowed = [event["allow"] for event in events if event.get("name") == "approval"]
        assert allowed == [False, True]
        assert [event["answers"] for event in events if event.get("answers")] == [["m0"], ["m1"]]


async def _error(on: Stopping, call_id: str) -> dict[str, Any]:
    await on.client.send("approve", call_id=call_id, allow=True)
    return await on.client.until("error")
