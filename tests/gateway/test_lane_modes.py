"""Messages that arrive while a turn runs: answered together, one by one, put before the model, or at once."""

import asyncio
import errno
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from channels.base import Answer, Receipt, Stored, Update
from channels.errors import Refused
from gateway.lane import MAX_WAITING, Lane
from gateway.rules import MODES, Mode
from gateway.turn import Ask
from session import events, transcript
from session.events import Assistant, Event, System, User
from session.ids import SessionId
from tests.conftest import Daemons
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Watcher, asked, cli, echo
from tests.fakes.openai_server import CallTools, Hang, OpenAIServer, PingForEver
from tests.session.disk import Disk

LOCAL = SessionId("agent:main:cli:local")


class Steps:
    """A runner's reply in model calls, each ended by `go`; before each it takes in what came meanwhile."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken: list[list[str]] = []  # by model call, of all turns
        self.at: asyncio.Queue[int] = asyncio.Queue()
        self._step = asyncio.Semaphore(0)

    def go(self, calls: int = 1) -> None:
        for _ in range(calls):
            self._step.release()

    async def __call__(self, ask: Ask) -> AsyncGenerator[Any]:
        for number in range(self.count):
            self.taken.append([message.content for message in ask.person.more()])
            self.at.put_nowait(number)
            await self._step.acquire()
            if number < self.count - 1:
                yield [Assistant(content=f"step {number}", finish="tool_calls")]
        yield [Assistant(content="done", finish="stop")]


def stored(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.lines()]


def closings(gateway: Gateway) -> list[tuple[list[str], str | None]]:
    return [(event["answers"], event.get("finish")) for event in stored(gateway) if event.get("answers")]


def is_steered(update: Update) -> bool:
    return isinstance(update, Stored) and getattr(update.record.event, "name", "") == "steered"


async def _write(gateway: Gateway, *batch: Event) -> None:
    await gateway.store.append(LOCAL, [events.stamped(event) for event in batch])


@asynccontextmanager
async def asking(
    folder: Path, runner: ScriptedRunner, mode: Mode
) -> AsyncIterator[tuple[Gateway, Lane, Watcher]]:
    """A gateway that was just asked "one", as the message `m1`."""
    async with Gateway(folder, runner, mode=mode) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "one")
        yield gateway, lane, watcher


# -- steer ---------------------------------------------------------------------------------------


async def test_a_steered_message_is_before_the_model_at_its_next_call(folder: Path) -> None:
    steps = Steps(3)
    async with asking(folder, ScriptedRunner(steps), "steer") as (gateway, lane, watcher):
        await steps.at.get()
        for number in (2, 3):
            assert (await lane.submit(f"m{number}", str(number))).queued == 1
        assert lane.waiting == 2
        steps.go()
        await steps.at.get()
        assert lane.waiting == 0
        await watcher.until(is_steered)
        assert lane.feed.running is not None
        assert lane.feed.running.answers == ("m1", "m2", "m3")
        assert (await lane.submit("m4", "4")).queued == 1
        steps.go()
        await steps.at.get()
        steps.go()
        await watcher.done()
        assert steps.taken == [[], ["2", "3"], ["4"]]
        assert closings(gateway) == [(["m1", "m2", "m3", "m4"], "stop")]
        steered = [event["messages"] for event in stored(gateway) if event.get("name") == "steered"]
        assert steered == [["m2", "m3"], ["m4"]]
        [exchange] = lane.conversation.window.before("another turn")
        assert [getattr(step, "content", "") for step in exchange.steps] == [
            "step 0", "2", "3", "step 1", "4", "done",
        ]  # fmt: skip


async def test_a_message_that_comes_too_late_waits_for_the_next_turn(folder: Path) -> None:
    steps = Steps(1)
    async with asking(folder, ScriptedRunner(steps), "steer") as (gateway, lane, watcher):
        await steps.at.get()
        await lane.submit("m2", "two")
        steps.go(2)
        await watcher.done(2)
        assert closings(gateway) == [(["m1"], "stop"), (["m2"], "stop")]
        assert [asked(ask) for ask in gateway.runner.asked] == ["one", "two"]


async def test_a_stop_answers_what_reached_the_model_and_no_more(folder: Path) -> None:
    steps = Steps(3)
    async with asking(folder, ScriptedRunner(steps), "steer") as (gateway, lane, watcher):
        await steps.at.get()
        await lane.submit("m2", "two")
        steps.go()
        await steps.at.get()
        await lane.submit("m3", "three")
        gateway.runner.reply = echo
        lane.stop()
        await watcher.done(2)
        assert closings(gateway) == [(["m1", "m2"], "stopped"), (["m3"], "stop")]


async def test_what_belongs_together_is_steered_together(folder: Path) -> None:
    steps = Steps(3)
    async with asking(folder, ScriptedRunner(steps), "steer") as (_, lane, watcher):
        await steps.at.get()
        await lane.submit("m2", "a part", hold=0.05)
        steps.go()
        await steps.at.get()
        await lane.submit("m3", "the rest", hold=0.05)
        await asyncio.sleep(0.06)
        steps.go()
        await steps.at.get()
        steps.go()
        await watcher.done()
        assert steps.taken == [[], [], ["a part", "the rest"]]


@pytest.mark.parametrize("reached", [True, False])
async def test_a_crash_keeps_a_message_where_it_was(folder: Path, reached: bool) -> None:
    steps = Steps(1)
    async with Gateway(folder, ScriptedRunner(steps)) as gateway:
        await _write(
            gateway,
            User(content="one", id="m1"),
            System(name="started", turn="t1", messages=("m1",), attempt=1),
            Assistant(content="step", turn="t1", finish="tool_calls"),
            User(content="two", id="m2"),
            *([System(name="steered", turn="t1", messages=("m2",))] if reached else []),
        )
        await gateway.router.resume()
        watcher = Watcher(await gateway.lane())
        steps.go(2)
        await watcher.done(1 if reached else 2)
        first = gateway.runner.asked[0]
        assert [message.content for message in first.current.messages] == ["one"]
        texts = [getattr(step, "content", "") for step in first.current.steps]
        assert texts == (["step", "two", "done"] if reached else ["step", "done"])
        both, alone = [(["m1", "m2"], "stop")], [(["m1"], "stop"), (["m2"], "stop")]
        assert closings(gateway) == (both if reached else alone)


async def test_a_kill_between_steering_and_the_answer_loses_nothing(
    daemons: Daemons, openai: OpenAIServer
) -> None:
    openai.script(Hang(then=CallTools([("get_current_datetime", {})])), PingForEver())
    async with daemons(server=openai, LUNAR_QUEUE__MODE="steer") as daemon:
        client = await daemon.client()
        await client.send(type="message", id="m1", text="What time is it?")
        await openai.until(lambda server: len(server.requests) == 1)
        await client.send(type="message", id="m2", text="In Tokyo, I mean")
        await client.until("ack", id="m2")
        openai.release.set()
        await openai.until(lambda server: len(server.requests) == 2)
        assert openai.requests[1].body["messages"][-1]["content"] == "In Tokyo, I mean"
        await daemon.kill()
        await daemon.start()
        await openai.until(lambda server: len(server.requests) == 3, timeout=15)
        said = [
            message["content"] for message in openai.requests[2].body["messages"] if message["role"] == "user"
        ]
        assert said == ["What time is it?", "In Tokyo, I mean"]
        client = await daemon.client()
        await client.until("done")
        answered = [event["answers"] for event in daemon.events(LOCAL) if event.get("answers")]
        assert answered == [["m1", "m2"]]


# -- interrupt -----------------------------------------------------------------------------------


async def test_a_message_interrupts(folder: Path) -> None:
    gate = Gate("Once upon")
    runner = ScriptedRunner(gate)
    async with asking(folder, runner, "interrupt") as (gateway, lane, watcher):
        await gate.entered.wait()
        runner.reply = echo
        assert (await lane.submit("m2", "A short one")).queued == 0
        assert (await watcher.done()).outcome == "stopped"
        assert (await watcher.done(2)).outcome == "completed"
        assert closings(gateway) == [(["m1"], "stopped"), (["m2"], "stop")]
        assert runner.asked[1].history[-1].steps[-1].content == "Once upon"  # type: ignore[union-attr] # the reply


async def test_a_burst_interrupts_once(folder: Path) -> None:
    gate = Gate("Once upon")
    runner = ScriptedRunner(gate)
    async with asking(folder, runner, "interrupt") as (gateway, lane, watcher):
        await gate.entered.wait()
        runner.reply = echo
        for number in (2, 3, 4):
            await lane.submit(f"m{number}", str(number), hold=0.1)
        await watcher.done(2)
        assert closings(gateway) == [(["m1"], "stopped"), (["m2", "m3", "m4"], "stop")]


async def test_what_is_refused_interrupts_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr(transcript, "os", disk)
    gate = Gate()
    async with asking(folder, ScriptedRunner(gate), "interrupt") as (gateway, lane, watcher):
        await gate.entered.wait()
        disk.fail("write", errno.ENOSPC, times=100)
        with pytest.raises(Refused):
            await lane.submit("m2", "Lost")
        disk.heal()
        await lane.record([System(name="setting", key="queue", value="collect")])
        for number in range(MAX_WAITING):
            await lane.submit(f"w{number}", "waits")
        await lane.record([System(name="setting", key="queue")])
        assert lane.mode == "interrupt"
        await lane.submit("x1", "one too many", insistent=True)
        gate.open.set()
        assert (await watcher.done(2)).outcome == "completed"
        assert closings(gateway)[:2] == [(["x1"], None), (["m1"], "stop")]


# -- by session ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_a_burst_is_one_turn_in_every_mode_but_each(folder: Path, mode: Mode) -> None:
    async with Gateway(folder, mode=mode) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        receipts = [await lane.submit(f"m{number}", str(number), hold=0.1) for number in range(3)]
        each = mode == "each"
        assert [receipt.queued for receipt in receipts] == ([0, 1, 2] if each else [0, 0, 0])
        await watcher.done(3 if each else 1)
        texts = ["0", "1", "2"] if each else ["0 + 1 + 2"]
        assert [asked(ask) for ask in gateway.runner.asked] == texts


async def test_a_session_chooses_its_mode(folder: Path) -> None:
    steps = Steps(2)
    async with Gateway(folder, ScriptedRunner(steps)) as gateway:
        seat = await gateway.router.session(cli())

        async def say(id: str, text: str) -> str:
            answer = await seat.submit(id, text)
            assert isinstance(answer, Answer)
            return answer.text

        shown = await say("q1", "/queue")
        assert "/queue collect (now): " in shown
        assert [f"/queue {mode}" in shown for mode in MODES] == [True] * len(MODES)
        assert "put before the model" in await say("q2", "/queue STEER ")
        assert await say("q2", "/queue steer") == "/queue was carried out already."
        assert "/queue collect (default): " in await say("q3", "/queue")
        assert "There is no mode 'fast'" in await say("q4", "/queue fast")
        lane = await gateway.lane()
        watcher = Watcher(lane)
        assert isinstance(await seat.submit("m1", "one"), Receipt)
        await steps.at.get()
        await seat.submit("m2", "two")
        steps.go(2)
        await watcher.done()
        assert steps.taken == [[], ["two"]]
    async with Gateway(folder, ScriptedRunner(steps)) as gateway:
        lane = await gateway.lane()
        modes = [lane.mode, (await gateway.lane("other")).mode]
        assert modes == ["steer", "collect"]
        seat = await gateway.router.session(cli())
        assert "together" in (await seat.submit("q5", "/queue default")).text  # type: ignore[union-attr] # a command
        assert lane.mode == lane.default_mode == "collect"
