"""One attempt at a turn: its slot, its limit, what it asks of the person, and how it ends."""

import asyncio
import errno
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from channels.base import Approval
from channels.errors import Refused
from gateway import turn_run
from gateway.lane import Lane
from gateway.turn import Ask
from gateway.turn_run import GAVE_UP, INTERRUPTED, TOO_LONG
from session import events, transcript
from session.events import Assistant, Event, System, ToolCall, ToolResult, User
from session.ids import SessionId
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Tools, Watcher, asked, echo
from tests.session.disk import Disk

LOCAL = SessionId("agent:main:cli:local")
RUNNING = 2


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under the transcripts."""
    disk = Disk()
    monkeypatch.setattr(transcript, "os", disk)
    return disk


def stored(gateway: Gateway, session: str = "local") -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.lines(session)]


def answers(gateway: Gateway) -> list[tuple[str, bool]]:
    return [
        (event["call_id"], event["allow"]) for event in stored(gateway) if event.get("name") == "approval"
    ]


def is_question(update: object) -> bool:
    return isinstance(update, Approval)


async def ask_for(lane: Lane, count: int = 1) -> Watcher:
    """Begin a turn that asks, and wait until all its questions are put."""
    watcher = Watcher(lane)
    await lane.submit("m1", "Delete it")
    await watcher.until(is_question, count)
    return watcher


# -- approval ------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow", [True, False])
async def test_a_tool_runs_only_when_the_person_allows_it(folder: Path, allow: bool) -> None:
    tools = Tools("c1")
    async with Gateway(folder, ScriptedRunner(tools)) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane)
        [question] = lane.asked
        assert (question.name, question.args, question.number) == ("delete", {"path": "c1"}, 1)
        assert lane.feed.running is not None
        assert lane.feed.running.approvals == (question,)
        assert not tools.ran
        await lane.approve("c1", allow, "m2")
        assert not lane.asked
        await watcher.done()
        assert tools.ran == ["c1"] * allow
        names = [event.get("name") for event in stored(gateway)]
        assert names[-4:-1] == ["delete", "approval", "delete"]
        assert stored(gateway)[-3] | {"ts": 0, "crc": 0} == {
            "role": "system", "name": "approval", "id": "m2", "turn": question.turn, "call_id": "c1",
            "allow": allow, "ts": 0, "crc": 0,
        }  # fmt: skip
        assert lane.conversation.seen["m2"].command


async def test_nobody_answers_what_is_not_asked(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(Tools("c1"))) as gateway:
        lane = await gateway.lane()
        with pytest.raises(Refused, match="No tool call is waiting"):
            await lane.approve("c1", True)
        watcher = await ask_for(lane)
        with pytest.raises(Refused, match="No tool call is waiting"):
            await lane.approve("c2", True)
        first, second = await asyncio.gather(
            lane.approve("c1", False), lane.approve("c1", True), return_exceptions=True
        )
        assert first is None
        assert isinstance(second, Refused)
        await watcher.done()
        assert answers(gateway) == [("c1", False)]


async def test_no_answer_in_time_is_a_no(folder: Path) -> None:
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        assert seconds == 300
        await over.wait()

    tools = Tools("c1")
    async with Gateway(folder, ScriptedRunner(tools), sleep=sleep) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane)
        over.set()
        await watcher.done()
        assert answers(gateway) == [("c1", False)]
        assert not tools.ran
        with pytest.raises(Refused):
            await lane.approve("c1", True)


@pytest.mark.parametrize("order", [("c1", "c2"), ("c2", "c1")])
async def test_two_questions_at_once(folder: Path, order: tuple[str, str]) -> None:
    tools = Tools("c1", "c2")
    async with Gateway(folder, ScriptedRunner(tools), running=RUNNING) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane, 2)
        assert [(question.call_id, question.number) for question in lane.asked] == [("c1", 1), ("c2", 2)]
        await lane.approve(order[0], True)
        assert [question.call_id for question in lane.asked] == [order[1]]
        await lane.approve(order[1], True)
        await watcher.done()
        assert tools.ran == list(order)
        await gateway.quiet()
        assert gateway.slots._value == RUNNING


# -- its slot and its limit ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
async def test_a_turn_that_asks_lets_others_run(folder: Path, count: int) -> None:
    calls = [f"c{number}" for number in range(count)]
    tools = Tools(*calls)
    tools.finish.clear()

    def reply(ask: Ask) -> AsyncGenerator[Any]:
        return tools(ask) if asked(ask) == "Delete it" else echo(ask)

    async with Gateway(folder, ScriptedRunner(reply), running=1) as gateway:
        lane, other = await gateway.lane(), await gateway.lane("other")
        watcher, others = await ask_for(lane, count), Watcher(other)
        await other.submit("m1", "Hello")
        await others.done()
        for call in calls:
            await lane.approve(call, True)
        async with asyncio.timeout(5):
            while not gateway.slots.locked():  # noqa: ASYNC110 - nothing tells when a slot is taken
                await asyncio.sleep(0)
        await other.submit("m2", "Hello")
        await asyncio.sleep(0.01)
        assert other.feed.running is None  # the tool works: it has the only slot
        tools.finish.set()
        await watcher.done()
        await others.done(2)
        await gateway.quiet()
        assert gateway.slots._value == 1


@pytest.mark.parametrize("calls", [("c1",), ("c1", "c2")])
async def test_the_limit_stands_still_while_the_person_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, calls: tuple[str, ...]
) -> None:
    monkeypatch.setattr(turn_run, "WALL_SECONDS", 0.2)
    tools = Tools(*calls)
    async with Gateway(folder, ScriptedRunner(tools)) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane, len(calls))
        for call in calls:
            await asyncio.sleep(0.3)
            await lane.approve(call, True)
        assert (await watcher.done()).outcome == "completed"


async def test_the_limit_counts_on_after_the_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_run, "WALL_SECONDS", 0.1)
    tools = Tools("c1")
    tools.finish.clear()
    async with Gateway(folder, ScriptedRunner(tools), running=RUNNING) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane)
        await lane.approve("c1", True)
        assert (await watcher.done()).outcome == "failed"
        *_, result, failed = stored(gateway)
        assert (result["result"], failed["content"]) == (INTERRUPTED, TOO_LONG)
        await gateway.quiet()
        assert gateway.slots._value == RUNNING


async def test_the_limit_stands_still_while_the_slot_is_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_run, "WALL_SECONDS", 0.2)
    async with Gateway(folder, ScriptedRunner(Tools("c1")), running=1) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane)
        await gateway.slots.acquire()
        await lane.approve("c1", True)
        await asyncio.sleep(0.3)
        gateway.slots.release()
        assert (await watcher.done()).outcome == "completed"


# -- a disk that fails ---------------------------------------------------------------------------


async def test_an_answer_that_cannot_be_stored_was_not_given(folder: Path, disk: Disk) -> None:
    tools = Tools("c1")
    async with Gateway(folder, ScriptedRunner(tools)) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane)
        for call in ("write", "fdatasync"):
            disk.fail(call, errno.ENOSPC)
            with pytest.raises(Refused) as refused:
                await lane.approve("c1", True)
            assert refused.value.code == "storage_unavailable"
            assert [question.call_id for question in lane.asked] == ["c1"]
        assert not tools.ran
        await lane.approve("c1", False)
        await watcher.done()
        assert answers(gateway) == [("c1", False)]


async def test_an_answer_on_its_way_to_the_disk_is_in_time(folder: Path, disk: Disk) -> None:
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await over.wait()

    for fails in (False, True):
        tools = Tools("c1")
        async with Gateway(folder / str(fails), ScriptedRunner(tools), sleep=sleep) as gateway:
            over.clear()
            lane = await gateway.lane()
            watcher = await ask_for(lane)
            if fails:
                disk.fail("write", errno.ENOSPC)
            giving = asyncio.create_task(lane.approve("c1", True))
            await asyncio.sleep(0)
            over.set()
            await asyncio.gather(giving, return_exceptions=True)
            await watcher.done()
            assert answers(gateway) == [("c1", not fails)]
            assert tools.ran == ["c1"] * (not fails)


async def test_an_answer_counts_though_its_sender_is_gone(folder: Path) -> None:
    tools = Tools("c1")
    async with Gateway(folder, ScriptedRunner(tools)) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane)
        giving = asyncio.create_task(lane.approve("c1", True))
        await asyncio.sleep(0)
        giving.cancel()
        await watcher.done()
        assert tools.ran == ["c1"]


# -- its end -------------------------------------------------------------------------------------


async def test_stopping_takes_the_question_back(folder: Path) -> None:
    tools = Tools("c1", "c2")
    async with Gateway(folder, ScriptedRunner(tools), running=RUNNING) as gateway:
        lane = await gateway.lane()
        watcher = await ask_for(lane, 2)
        assert lane.stop()
        assert (await watcher.done()).outcome == "stopped"
        await gateway.quiet()
        assert not lane.asked
        assert lane.feed.running is None
        assert not answers(gateway)
        assert gateway.slots._value == RUNNING


def _whole(gateway: Gateway) -> None:
    """One outcome, one result for each call, no slot lost, nothing left at work."""
    lines = stored(gateway)
    assert [id for event in lines for id in event.get("answers", ())] == ["m1"]
    calls = [event["call_id"] for event in lines if event["role"] == "tool_call"]
    results = [event["call_id"] for event in lines if event["role"] == "tool_result"]
    assert sorted(calls) == sorted(results)
    assert gateway.slots._value == RUNNING


async def _steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_turn_may_be_stopped_at_every_await(folder: Path) -> None:
    step, outcome = 0, "stopped"
    while outcome == "stopped":  # until a turn was quicker than the stop
        tools = Tools("c1", "c2")
        async with Gateway(folder / str(step), ScriptedRunner(tools), running=RUNNING) as gateway:
            lane = await gateway.lane()
            watcher = Watcher(lane)
            before = asyncio.all_tasks()
            stopping = asyncio.create_task(_stop_after(lane, step))
            await lane.submit("m1", "Delete it")
            answering = asyncio.create_task(_allow_all(lane, watcher))
            outcome = (await watcher.done()).outcome
            answering.cancel()
            await asyncio.wait({answering, stopping})
            await gateway.quiet()
            _whole(gateway)
            assert asyncio.all_tasks() <= before
        step += 1 + step // 20
    assert step > 20


async def _stop_after(lane: Lane, step: int) -> None:
    async with asyncio.timeout(5):
        while not lane.working:  # noqa: ASYNC110 - the point is to count the loop's steps from here
            await asyncio.sleep(0)
    await _steps(step)
    lane.stop()


async def _allow_all(lane: Lane, watcher: Watcher) -> None:
    for number in (1, 2):
        question = await watcher.until(is_question, number)
        assert isinstance(question, Approval)
        try:
            await lane.approve(question.call_id, True)
        except Refused:
            return  # it was stopped


# -- the next start ------------------------------------------------------------------------------


async def test_a_stop_of_the_gateway_does_not_wait_for_a_person(folder: Path) -> None:
    first = Tools("c1")
    async with Gateway(folder, ScriptedRunner(first)) as gateway:
        await ask_for(await gateway.lane())
        async with asyncio.timeout(5):
            await gateway.router.drain(60)
        assert not answers(gateway)
    second = Tools("c1")
    runner = ScriptedRunner(second)
    runner.repeats = True
    async with Gateway(folder, runner) as gateway:
        await gateway.router.resume()
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await watcher.until(is_question) if not lane.asked else None
        assert not second.ran
        await lane.approve("c1", True)
        await watcher.done()
        assert (first.ran, second.ran) == ([], ["c1"])
        _whole_restarted(gateway)


def _whole_restarted(gateway: Gateway) -> None:
    roles = [event["role"] for event in stored(gateway)]
    assert (roles.count("tool_call"), roles.count("tool_result"), roles.count("assistant")) == (1, 1, 1)


async def _left_by_a_crash(gateway: Gateway, attempts: int) -> None:
    batch: list[Event] = [
        User(content="Delete it", id="m1"),
        *(System(name="started", turn="t1", messages=("m1",), attempt=n + 1) for n in range(attempts)),
        ToolCall(name="delete", args={"path": "c1"}, call_id="c1", turn="t1"),
        ToolCall(name="delete", args={"path": "c2"}, call_id="c2", turn="t1"),
        ToolResult(name="delete", result="done", call_id="c2", ok=True, turn="t1"),
    ]
    await gateway.store.append(LOCAL, [events.stamped(event) for event in batch])


@pytest.mark.parametrize("repeats", [True, False])
async def test_only_what_may_be_repeated_is(folder: Path, repeats: bool) -> None:
    tools = Tools("c1", "c2")
    runner = ScriptedRunner(tools)
    runner.repeats = repeats
    async with Gateway(folder, runner) as gateway:
        await _left_by_a_crash(gateway, 1)
        await gateway.router.resume()
        lane = await gateway.lane()
        watcher = Watcher(lane)
        if repeats:
            while not lane.asked:  # noqa: ASYNC110 - it may be asked already: no update would tell
                await asyncio.sleep(0)
            await lane.approve("c1", True)
        await watcher.done()
        results = [
            (event["call_id"], event["ok"]) for event in stored(gateway) if event["role"] == "tool_result"
        ]
        assert results == [("c2", True), ("c1", repeats)]
        assert tools.ran == ["c1"] * repeats


async def test_a_turn_that_is_given_up_leaves_no_call_open(folder: Path) -> None:
    runner = ScriptedRunner(Tools("c1", "c2"))
    runner.repeats = True
    async with Gateway(folder, runner) as gateway:
        await _left_by_a_crash(gateway, 3)
        await gateway.router.resume()
        await Watcher(await gateway.lane()).done()
        *_, result, failed = stored(gateway)
        assert (result["call_id"], result["result"]) == ("c1", INTERRUPTED)
        assert failed["content"] == GAVE_UP
        assert not runner.asked


async def test_a_slot_that_is_waited_for_is_not_lost_with_the_turn(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate), running=1) as gateway:
        first, second = await gateway.lane(), await gateway.lane("second")
        watcher, others = Watcher(first), Watcher(second)
        await first.submit("m1", "Hello")
        await gate.entered.wait()
        await second.submit("m1", "Hello")
        await _steps(3)
        second.stop()
        gate.open.set()
        await watcher.done()
        await others.done()
        await gateway.quiet()
        assert gateway.slots._value == 1


Reply = Callable[[Ask], AsyncGenerator[Any]]


async def _fails_with_a_question_open(ask: Ask) -> AsyncGenerator[Any]:
    yield [ToolCall(name="delete", args={}, call_id="c1")]
    asking = asyncio.create_task(ask.person.allows(ToolCall(name="delete", args={}, call_id="c1")))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    yield [ToolResult(name="delete", result="no", call_id="c1", ok=False)]
    yield [Assistant(content="Well.", finish="stop")]


async def test_a_question_that_the_runner_gives_up_holds_nothing(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(_fails_with_a_question_open), running=RUNNING) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Delete it")
        assert (await watcher.done()).outcome == "completed"
        await gateway.quiet()
        _whole(gateway)
