"""What was chosen and summed up long ago is known after a restart, however much was said since."""

import asyncio
import json
from pathlib import Path

from gateway.lane import Lane
from session.conversation import REMEMBERED, tail
from session.events import System
from session.ids import SessionId
from session.lasting import CARRIED
from tests.fakes.gateway import Gateway, ScriptedRunner, Watcher

PUSHED = SessionId("agent:main:telegram:user:7")


async def long_ago(lane: Lane) -> None:
    await lane.record(
        [
            System(name="setting", key="queue", value="collect", id="c1"),
            System(name="setting", key="model", value="small", id="c2"),
            System(name="setting", key="model", value="large", id="c3"),
            System(name="summary", covers="t0", content="His cat is called Tom.", instead=True, model="m"),
            System(name="address", chat="-100123"),
        ]
    )


async def test_a_thousand_messages_later(folder: Path) -> None:
    async with Gateway(folder, mode="each") as gateway:
        lane = await gateway.router.lane(PUSHED)
        lane._rules = lane._rules._replace(summaries=False)
        await long_ago(lane)
        watcher = Watcher(lane)
        for number in range(50):
            await asyncio.gather(*(lane.submit(f"m{number}.{n}", "Hello?") for n in range(20)))
            await watcher.until(lambda _: not lane.conversation.open)
    name = "agent-main-telegram-user-7.jsonl"
    lines = [json.loads(line) for line in (folder / "sessions" / name).read_bytes().splitlines()]
    summaries = [event for event in lines if event.get("name") == "summary"]
    assert 1000 // CARRIED <= len(summaries) - 1 <= 1000 // CARRIED + 1
    assert all("model" not in event for event in summaries[1:])  # no second call is counted
    assert [event["id"] for event in lines if event.get("name") == "setting" and "id" in event] == [
        "c1", "c2", "c3",
    ]  # fmt: skip
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        read = await gateway.store.recent(PUSHED, tail(20))
        assert len(read) <= 3 * REMEMBERED
        lane = await gateway.router.lane(PUSHED)
        assert lane.conversation.settings == {"queue": "collect", "model": "large"}
        assert lane.conversation.replies
        assert lane.conversation.replies.address == "-100123"
        watcher = Watcher(lane)
        await lane.submit("m9", "What is my cat called?")
        await watcher.until(lambda _: not lane.conversation.open)
        assert runner.asked[-1].summary == "His cat is called Tom."
        assert runner.asked[-1].model == "large"


async def test_a_summary_that_was_forgotten_is_not_carried(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.router.lane(PUSHED)
        await long_ago(lane)
        await lane.record([System(name="reset", id="c4"), System(name="setting", key="model", id="c5")])
        carried = lane.conversation.lasting.carry(CARRIED)
        assert [(event.name, event.key) for event in carried] == [("setting", "queue"), ("address", None)]
