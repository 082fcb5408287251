"""Summaries of what falls out of the window: when, of what, and that no turn waits for them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from channels.base import Answer, Stored, Update
from gateway import compaction
from gateway.compaction import BEGUN, BUSY, DONE, NOTHING, STOPPED
from gateway.config import Allowance, Budget
from gateway.turn import Recap, Spending
from session.events import System, Usage
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Watcher, cli, summed_up


def stored(gateway: Gateway, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.lines()]
    return [event for event in lines if event.get("name") == name]


def told(name: str) -> Any:
    """Whether an update is a stored system event of this name."""

    def is_it(update: Update) -> bool:
        event = update.record.event if isinstance(update, Stored) else None
        return isinstance(event, System) and event.name == name

    return is_it


async def talk(gateway: Gateway, first: int, last: int) -> Watcher:
    """Ask "<n>?" for every n of the range, one after another."""
    lane = await gateway.lane()
    watcher = Watcher(lane)
    for count, number in enumerate(range(first, last), 1):
        await lane.submit(f"m{number}", f"{number}?")
        await watcher.done(count)
    return watcher


def texts(recap: Recap) -> list[str]:
    return [message.content for exchange in recap.exchanges for message in exchange.asked]


async def test_what_is_about_to_fall_out_is_summed_up(folder: Path) -> None:
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        await talk(gateway, 0, 9)
        assert not runner.recaps
        watcher = await talk(gateway, 9, 10)
        await watcher.until(told("summary"))
        assert [texts(recap) for recap in runner.recaps] == [["0?", "1?", "2?", "3?", "4?"]]
        [summary] = stored(gateway, "summary")
        assert summary["usage"] == {"input": 100, "output": 10}
        turns = [event["turn"] for event in stored(gateway, "started")]
        assert summary["covers"] == turns[4]
        await talk(gateway, 10, 11)
        *_, ask = runner.asked
        assert ask.summary == "(0? + 1? + 2? + 3? + 4?)"
        assert len(ask.history) == 10  # it is still seen until it falls out by itself
        watcher = await talk(gateway, 11, 15)
        await watcher.until(told("summary"))
        assert [texts(recap) for recap in runner.recaps[1:]] == [["5?", "6?", "7?", "8?", "9?"]]
        assert runner.recaps[1].previous == ask.summary


async def test_a_summary_outlives_the_process(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        watcher = await talk(gateway, 0, 10)
        await watcher.until(told("summary"))
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        await talk(gateway, 10, 11)
        assert runner.asked[0].summary == "(0? + 1? + 2? + 3? + 4?)"
        assert not runner.recaps


async def test_no_turn_waits_for_a_summary(folder: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(recap: Recap) -> AsyncGenerator[Any]:
        begun.set()
        await go_on.wait()
        async for item in summed_up(recap):
            yield item

    runner = ScriptedRunner()
    runner.sum_up = slowly
    async with Gateway(folder, runner) as gateway:
        lane = await gateway.lane()
        await talk(gateway, 0, 10)
        await begun.wait()
        watcher = await talk(gateway, 10, 30)
        assert len(runner.recaps) == 1
        assert not lane.idle
        go_on.set()
        await watcher.until(told("summary"))
        await lane.submit("m30", "30?")
        await watcher.until(told("summary"), 2)
        # What fell out meanwhile is not lost: the next one tells of it.
        assert texts(runner.recaps[1])[0] == "5?"


async def test_a_summary_that_fails_is_no_turns_failure_and_is_not_tried_at_once(folder: Path) -> None:
    async def fails(recap: Recap) -> AsyncGenerator[Any]:
        yield Spending(Usage(50, estimated=True))
        raise RuntimeError("the model is away")

    runner = ScriptedRunner()
    runner.sum_up = fails
    async with Gateway(folder, runner) as gateway:
        await talk(gateway, 0, 60)
        assert not stored(gateway, "turn_failed")
        assert 2 <= len(runner.recaps) <= 6
        failed = stored(gateway, "summary_failed")
        assert {event["usage"]["input"] for event in failed} == {50}
        runner.sum_up = summed_up
        watcher = Watcher(await gateway.lane())
        for number in range(60, 100):
            await (await gateway.lane()).submit(f"m{number}", f"{number}?")
            await watcher.done(number - 59)
        await watcher.until(told("summary"))
        # As far back as the backlog goes.
        assert len(texts(runner.recaps[-1])) <= 64


async def test_a_summary_waits_for_a_budget(folder: Path) -> None:
    runner = ScriptedRunner()
    budget = Budget(peer=Allowance(tokens=50))
    async with Gateway(folder, runner, budget=budget) as gateway:
        watcher = await talk(gateway, 0, 12)
        await watcher.until(told("summary"))  # 110 tokens: the last thing that was allowed
        await talk(gateway, 12, 30)
        assert len(runner.recaps) == 1
        assert len(runner.asked) <= 13


async def test_summaries_can_be_off(folder: Path) -> None:
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        lane = await gateway.lane()
        lane._rules = lane._rules._replace(summaries=False)
        await talk(gateway, 0, 30)
        assert not runner.recaps


@pytest.mark.parametrize("command", ["/new", "/undo", "/stop"])
async def test_what_a_summary_would_tell_of_wrongly_is_not_written(folder: Path, command: str) -> None:
    begun = asyncio.Event()

    async def never(recap: Recap) -> AsyncGenerator[Any]:
        yield Spending(Usage(70))
        begun.set()
        await asyncio.Event().wait()

    runner = ScriptedRunner()
    runner.sum_up = never
    async with Gateway(folder, runner) as gateway:
        seat = await gateway.router.session(cli())
        watcher = await talk(gateway, 0, 10)
        await begun.wait()
        await seat.submit("c1", command)
        await watcher.until(told("summary_failed"))
        assert stored(gateway, "summary_failed")[0]["usage"] == {"input": 70}
        assert not stored(gateway, "summary")


async def test_new_forgets_the_summary(folder: Path) -> None:
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        seat = await gateway.router.session(cli())
        watcher = await talk(gateway, 0, 10)
        await watcher.until(told("summary"))
        await seat.submit("c1", "/new")
        await talk(gateway, 10, 11)
        assert runner.asked[-1].summary is None
        assert runner.asked[-1].history == []


async def test_stopping_the_gateway_leaves_no_summary_running(folder: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def never(recap: Recap) -> AsyncGenerator[Any]:
        try:
            begun.set()
            yield Spending(Usage(70))
            await asyncio.Event().wait()
        finally:
            ended.set()

    runner = ScriptedRunner()
    runner.sum_up = never
    async with Gateway(folder, runner) as gateway:
        await talk(gateway, 0, 10)
        await begun.wait()
        await gateway.router.drain(5)
        assert ended.is_set()
        assert (await gateway.lane()).idle


async def test_a_summary_has_a_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SECONDS", 0.01)

    async def never(recap: Recap) -> AsyncGenerator[Any]:
        yield Spending(Usage(70))
        await asyncio.Event().wait()

    runner = ScriptedRunner()
    runner.sum_up = never
    async with Gateway(folder, runner) as gateway:
        watcher = await talk(gateway, 0, 10)
        await watcher.until(told("summary_failed"))


# -- /compact ------------------------------------------------------------------------------------------


async def test_compact_puts_a_summary_in_the_place_of_what_was_said(folder: Path) -> None:
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        seat = await gateway.router.session(cli())
        watcher = await talk(gateway, 0, 6)
        assert await seat.submit("c1", "/compact") == Answer(BEGUN)
        await watcher.until(told("summary"))
        assert await seat.submit("c1", "/compact") == Answer("/compact was carried out already.")
        assert texts(runner.recaps[0]) == ["0?", "1?", "2?", "3?"]
        assert [event["content"] for event in stored(gateway, "note")] == ["/compact", DONE]
        await talk(gateway, 6, 7)
        assert [exchange.messages[0].content for exchange in runner.asked[-1].history] == ["4?", "5?"]
        assert runner.asked[-1].summary == "(0? + 1? + 2? + 3?)"
    async with Gateway(folder, runner) as gateway:
        await talk(gateway, 7, 8)
        assert [exchange.messages[0].content for exchange in runner.asked[-1].history] == ["4?", "5?", "6?"]


async def test_compact_asks_no_model_where_everything_is_summed_up(folder: Path) -> None:
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        seat = await gateway.router.session(cli())
        assert await seat.submit("c1", "/compact") == Answer(NOTHING)
        watcher = await talk(gateway, 0, 10)
        await watcher.until(told("summary"))
        for number in range(3):  # so that only what is covered is further back than the last messages
            await seat.submit(f"u{number}", "/undo")
        assert await seat.submit("c2", "/compact") == Answer(DONE)
        assert len(runner.recaps) == 1
        assert (await gateway.lane()).conversation.window.size == 4
        usages = [event.get("usage") for event in stored(gateway, "summary")]
        assert usages == [{"input": 100, "output": 10}, None]


async def test_compact_says_why_there_is_no_summary(folder: Path) -> None:
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        seat = await gateway.router.session(cli())
        watcher = await talk(gateway, 0, 6)
        gateway.ledger.limit({"main": Budget(peer=Allowance(tokens=1))})
        gateway.ledger.count((await gateway.lane()).session, System(name="summary", usage=Usage(5)))
        assert await seat.submit("c1", "/compact") == Answer(BEGUN)
        await watcher.until(lambda update: told("note")(update) and "used up for today" in str(update))
        assert not runner.recaps


async def test_stop_ends_a_compact(folder: Path) -> None:
    begun = asyncio.Event()

    async def never(recap: Recap) -> AsyncGenerator[Any]:
        begun.set()
        await asyncio.Event().wait()
        yield []

    runner = ScriptedRunner()
    runner.sum_up = never
    async with Gateway(folder, runner) as gateway:
        seat = await gateway.router.session(cli())
        watcher = await talk(gateway, 0, 6)
        assert await seat.submit("c1", "/compact") == Answer(BEGUN)
        await begun.wait()
        assert await seat.submit("c2", "/compact") == Answer(BUSY)
        assert await seat.submit("c3", "/stop") == Answer("Stopped.")
        await watcher.until(lambda update: told("note")(update) and STOPPED in str(update))
        assert await seat.submit("c4", "/stop") == Answer("Nothing is running.")


async def test_compact_goes_on_while_a_turn_runs(folder: Path) -> None:
    gate = Gate("")
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        seat = await gateway.router.session(cli())
        lane = await gateway.lane()
        await talk(gateway, 0, 6)
        watcher = Watcher(lane)
        runner.reply = gate
        await seat.submit("m6", "6?")
        await gate.entered.wait()
        assert await seat.submit("c1", "/compact") == Answer(BEGUN)
        await watcher.until(told("summary"))
        gate.open.set()
        assert (await watcher.done()).outcome == "completed"
