"""One session's turns, over a real store on a real disk that can be told to fail."""

import asyncio
import errno
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from channels.base import Delta, Receipt, Started, ToolActivity
from channels.errors import Refused
from gateway import lane as lane_module
from gateway import turn_run
from gateway.journal import Journal
from gateway.lane import MAX_WAITING, Lane
from gateway.turn import Ask
from gateway.turn_run import BROKEN, GAVE_UP, INTERRUPTED, TOO_LONG
from session import events, transcript
from session import store as store_module
from session.events import Assistant, Event, Record, System, ToolCall, ToolResult, User
from session.ids import SessionId
from session.store import Store
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Watcher, asked, echo
from tests.session.disk import Disk

LOCAL = SessionId("agent:main:cli:local")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under the transcripts."""
    disk = Disk()
    monkeypatch.setattr(transcript, "os", disk)
    return disk


def stored(gateway: Gateway, session: str = "local") -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.lines(session)]


def said(gateway: Gateway) -> list[str]:
    """What stands in the transcript, in order, without the gateway's own notes."""
    return [event["content"] for event in stored(gateway) if event["role"] in ("user", "assistant")]


async def write(store: Store, *batch: Event) -> None:
    """A transcript as an earlier life left it."""
    await store.append(LOCAL, [events.stamped(event) for event in batch])


# -- messages ------------------------------------------------------------------------------------


async def test_a_message_is_on_disk_when_it_is_acknowledged(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        lane = await gateway.lane()
        receipt = await lane.submit("m1", "Hello")
        assert stored(gateway)[1]["content"] == "Hello"
        assert receipt == Receipt(lane.conversation.cursor or "", 0)
        await gate.entered.wait()
        assert (await lane.submit("m2", "Hello again")).queued == 1
        gate.open.set()


async def test_what_waited_is_answered_together(folder: Path) -> None:
    gate = Gate("")
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "one")
        await gate.entered.wait()
        for number in ("two", "three"):
            assert (await lane.submit(f"m-{number}", number)).queued == 1
        assert lane.waiting == 2
        gate.open.set()
        await watcher.done(2)
        assert [asked(ask) for ask in gateway.runner.asked] == ["one", "two + three"]
        assert stored(gateway)[-1]["answers"] == ["m-two", "m-three"]


async def test_each_answers_one_by_one(folder: Path) -> None:
    gate = Gate("")
    async with Gateway(folder, ScriptedRunner(gate), mode="each") as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        receipts = [await lane.submit(f"m{number}", str(number)) for number in range(3)]
        assert [receipt.queued for receipt in receipts] == [0, 1, 2]
        gate.open.set()
        await watcher.done(3)
        assert [asked(ask) for ask in gateway.runner.asked] == ["0", "1", "2"]


async def test_a_repeat_is_acknowledged_and_not_run_again(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        first, second = await asyncio.gather(lane.submit("m1", "Hello"), lane.submit("m1", "Hello"))
        await watcher.done()
        third = await lane.submit("m1", "Hello")
        assert first.cursor == second.cursor == third.cursor
        assert third.queued == 0
        assert said(gateway) == ["Hello", "echo: Hello"]


async def test_an_id_stands_for_one_text(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        arriving = asyncio.create_task(lane.submit("m1", "Hello"))
        await asyncio.sleep(0)
        for _ in range(2):  # on its way to the disk, and then on it
            with pytest.raises(Refused) as refused:
                await lane.submit("m1", "Something else")
            assert refused.value.code == "id_conflict"
            await arriving
        await lane.record([System(name="reset", id="c1")])
        with pytest.raises(Refused) as refused:
            await lane.submit("c1", "Not the command")
        assert refused.value.code == "id_conflict"
        assert "Not the command" not in said(gateway)


async def test_twenty_may_wait(folder: Path) -> None:
    gate = Gate("")
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m0", "running")
        await gate.entered.wait()
        results = await asyncio.gather(
            *(lane.submit(f"w{number}", f"waits {number}") for number in range(25)), return_exceptions=True
        )
        refused = [result.code for result in results if isinstance(result, Refused)]
        assert refused == ["queue_full"] * 5
        assert sum(text.startswith("waits") for text in said(gateway)) == 20
        other = await gateway.lane("other")
        await other.submit("m0", "A full queue is one session's own")
        gate.open.set()
        await watcher.done(2)
        await lane.submit("w24", "waits 24")


# -- turns ---------------------------------------------------------------------------------------


async def test_running_sessions_are_limited_and_take_turns(folder: Path) -> None:
    gate = Gate("")
    async with Gateway(folder, ScriptedRunner(gate), running=1, mode="each") as gateway:
        busy, other = await gateway.lane("busy"), await gateway.lane("other")
        watcher, others = Watcher(busy), Watcher(other)
        for number in range(3):
            await busy.submit(f"m{number}", f"busy {number}")
        await gate.entered.wait()
        await other.submit("m0", "other")
        assert other.working
        assert other.feed.running is None
        gate.open.set()
        await watcher.done(3)
        await others.done()
        assert [asked(ask) for ask in gateway.runner.asked] == ["busy 0", "other", "busy 1", "busy 2"]


async def test_stopping_keeps_what_was_said_and_goes_on_with_what_waited(folder: Path) -> None:
    gate = Gate("Once upon")
    runner = ScriptedRunner(gate)
    async with Gateway(folder, runner) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        assert not lane.stop()
        await lane.submit("m1", "Tell me a story")
        await gate.entered.wait()
        await lane.submit("m2", "A short one")
        runner.reply = echo
        assert lane.stop()
        assert not lane.stop()
        assert (await watcher.done()).outcome == "stopped"
        assert (await watcher.done(2)).outcome == "completed"
        assert runner.closed >= 1
        assert said(gateway) == ["Tell me a story", "A short one", "Once upon", "echo: A short one"]
        assert [event["finish"] for event in stored(gateway) if "answers" in event] == ["stopped", "stop"]


async def test_stopping_a_turn_that_waits_for_its_slot(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate), running=1) as gateway:
        first, second = await gateway.lane("first"), await gateway.lane("second")
        watchers = Watcher(first), Watcher(second)
        await first.submit("m1", "Hello")
        await gate.entered.wait()
        await second.submit("m1", "Wait")
        assert second.stop()
        assert (await watchers[1].done()).outcome == "stopped"
        await second.submit("m2", "Wait again")
        gate.open.set()
        await watchers[0].done()
        await watchers[1].done(2)
        assert [asked(ask) for ask in gateway.runner.asked] == ["Hello", "Wait again"]


async def test_stopping_a_tool_closes_its_call(folder: Path) -> None:
    entered = asyncio.Event()

    async def calls(ask: Ask) -> AsyncGenerator[Any]:
        yield [ToolCall(name="slow", args={}, call_id="c1"), ToolCall(name="quick", args={}, call_id="c2")]
        yield ToolActivity(ask.turn, "c1", "slow", "started")
        yield [ToolResult(name="quick", result="42", call_id="c2", ok=True)]
        entered.set()
        await asyncio.Event().wait()

    async with Gateway(folder, ScriptedRunner(calls)) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Use your tools")
        await entered.wait()
        lane.stop()
        await watcher.done()
        *_, quick, slow, stopped = stored(gateway)
        assert (quick["call_id"], quick["ok"]) == ("c2", True)
        assert (slow["call_id"], slow["ok"], slow["result"]) == ("c1", False, INTERRUPTED)
        assert (stopped["finish"], stopped["content"]) == ("stopped", "")


@pytest.mark.parametrize("beginning", ["Half an", ""])
async def test_a_turn_has_a_limit(folder: Path, monkeypatch: pytest.MonkeyPatch, beginning: str) -> None:
    monkeypatch.setattr(turn_run, "WALL_SECONDS", 0.05)
    async with Gateway(folder, ScriptedRunner(Gate(beginning))) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await watcher.done()
        closing = stored(gateway)[-1]
        assert closing["content"] == (beginning or TOO_LONG)
        assert closing.get("finish") == ("cut" if beginning else None)


async def test_the_limit_stands_still_while_the_disk_is_away(
    folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_run, "WALL_SECONDS", 0.5)

    async def steps(ask: Ask) -> AsyncGenerator[Any]:
        disk.fail("write", errno.ENOSPC)
        yield [ToolCall(name="tool", args={}, call_id="c1")]
        yield [ToolResult(name="tool", result="done", call_id="c1", ok=True)]
        await asyncio.sleep(0.01)
        yield [Assistant(content="Done.", finish="stop")]

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0.7)

    async with Gateway(folder, ScriptedRunner(steps), sleep=sleep) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await watcher.done()
        assert stored(gateway)[-1]["content"] == "Done."


async def _raises(ask: Ask) -> AsyncGenerator[Any]:
    yield Delta(ask.turn, "Well, ")
    raise KeyError("a defect")


async def _ends_early(ask: Ask) -> AsyncGenerator[Any]:
    yield Delta(ask.turn, "Well, ")


async def _cancels_itself(ask: Ask) -> AsyncGenerator[Any]:
    yield Delta(ask.turn, "Well, ")
    raise asyncio.CancelledError


@pytest.mark.parametrize("reply", [_raises, _ends_early, _cancels_itself])
async def test_a_runner_that_breaks_ends_its_turn(folder: Path, reply: Any) -> None:
    runner = ScriptedRunner(reply)
    async with Gateway(folder, runner) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        assert (await watcher.done()).outcome == "failed"
        assert stored(gateway)[-1]["content"] == BROKEN
        assert len(runner.asked) == 1
        runner.reply = echo
        await lane.submit("m2", "Hello again")
        assert (await watcher.done(2)).outcome == "completed"


async def test_the_same_is_seen_by_whoever_watches_from_the_start_or_the_middle(folder: Path) -> None:
    step = asyncio.Semaphore(0)
    words = ["One ", "two ", "three ", "four."]

    async def reply(ask: Ask) -> AsyncGenerator[Any]:
        for word in words:
            await step.acquire()
            yield Delta(ask.turn, word)
        yield [Assistant(content="".join(words), finish="stop")]

    async with Gateway(folder, ScriptedRunner(reply)) as gateway:
        lane = await gateway.lane()
        watchers = [Watcher(lane)]
        await lane.submit("m1", "Count")
        await watchers[0].until(lambda update: isinstance(update, Started))
        for number in range(len(words)):
            watchers.append(Watcher(lane))
            step.release()
            await watchers[0].until(lambda update: isinstance(update, Delta), number + 1)
        await watchers[0].done()
        for watcher in watchers:
            running = watcher.watch.running
            before = running.text if running else ""
            deltas = [update.text for update in watcher.updates if isinstance(update, Delta)]
            assert before + "".join(deltas) == "One two three four."
        assert lane.feed.running is None


# -- after a crash -------------------------------------------------------------------------------


async def test_a_turn_goes_on_where_a_crash_broke_it_off(folder: Path) -> None:
    steps: list[type] = []

    async def reply(ask: Ask) -> AsyncGenerator[Any]:
        steps.extend(type(step) for step in ask.current.steps)
        async for item in echo(ask):
            yield item

    runner = ScriptedRunner(reply)
    async with Gateway(folder, runner) as gateway:
        await write(
            gateway.store,
            User(content="first", id="m1"),
            User(content="second", id="m2"),
            System(name="started", turn="t1", messages=("m1",), attempt=1),
            ToolCall(name="tool", args={}, call_id="c1", turn="t1"),
            ToolCall(name="tool", args={}, call_id="c2", turn="t1"),
            ToolResult(name="tool", result="done", call_id="c1", ok=True, turn="t1"),
        )
        assert await gateway.router.resume() == 1
        lane = await gateway.lane()
        await Watcher(lane).done(2)
        first, second = runner.asked
        assert steps == [ToolCall, ToolCall, ToolResult, ToolResult]
        assert (first.turn, asked(first), asked(second)) == ("t1", "first", "second")
        assert second.history[-1].messages[0].content == "first"
        assert [event["attempt"] for event in stored(gateway) if event.get("name") == "started"] == [1, 2, 1]


async def test_the_fourth_attempt_is_an_apology(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        begun = [System(name="started", turn="t1", messages=("m1",), attempt=n) for n in (1, 2, 3)]
        await write(gateway.store, User(content="first", id="m1"), *begun)
        await gateway.router.resume()
        lane = await gateway.lane()
        await Watcher(lane).done()
        assert [event["content"] for event in stored(gateway) if event.get("answers")] == [GAVE_UP]
        assert not gateway.runner.asked


async def test_a_stored_answer_is_not_asked_for_again(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        await write(
            gateway.store,
            User(content="first", id="m1"),
            System(name="started", turn="t1", messages=("m1",), attempt=1),
            Assistant(content="An answer", turn="t1", answers=("m1",), finish="stop"),
        )
        assert await gateway.router.resume() == 0
        assert not gateway.router.lanes
        assert not gateway.runner.asked


# -- a disk that fails ---------------------------------------------------------------------------


async def test_a_message_that_cannot_be_stored_is_refused(folder: Path, disk: Disk) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await watcher.done()
        for call in ("write", "fdatasync"):
            disk.fail(call, errno.ENOSPC)
            with pytest.raises(Refused) as refused:
                await lane.submit("m2", "Lost?")
            assert refused.value.code == "storage_unavailable"
            assert not gateway.health.live().ok
            assert "Lost?" not in said(gateway)
        await lane.submit("m2", "Lost?")
        await watcher.done(2)
        assert gateway.health.live().ok
        assert said(gateway) == ["Hello", "echo: Hello", "Lost?", "echo: Lost?"]


async def test_an_answer_waits_for_the_disk(folder: Path, disk: Disk) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert not gateway.health.live().ok

    async def reply(ask: Ask) -> AsyncGenerator[Any]:
        disk.fail("fdatasync", errno.EIO, times=5)  # the append, the cut, …
        yield [Assistant(content="At last", finish="stop")]

    async with Gateway(folder, ScriptedRunner(reply), sleep=sleep) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await watcher.done()
        assert slept == [1.0, 1.0, 1.0]
        assert said(gateway) == ["Hello", "At last"]
        assert gateway.health.live().ok
        assert await lane.submit("m1", "Hello")
        assert len(gateway.runner.asked) == 1


async def test_what_is_stored_while_the_file_is_read_again_is_not_forgotten(
    folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed append two messages come at once; the one that looked at the file first is slow."""
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m0", "Hello")
        await watcher.done()
        disk.fail("write", errno.ENOSPC)
        with pytest.raises(Refused):
            await lane.submit("m1", "Lost")
        looked, go_on = asyncio.Event(), asyncio.Event()
        real = lane.journal._tail

        async def tail() -> list[Record]:
            found = await real()
            if not looked.is_set():
                looked.set()
                await go_on.wait()
            return found

        monkeypatch.setattr(lane.journal, "_tail", tail)
        slow = asyncio.create_task(lane.submit("m2", "slow"))
        await looked.wait()
        await lane.submit("m3", "quick")
        go_on.set()
        await slow
        await watcher.until(lambda _: not lane.conversation.open)
        answered = [id for event in stored(gateway) for id in event.get("answers", ())]
        assert sorted(answered) == ["m0", "m2", "m3"]
        assert [asked(ask) for ask in gateway.runner.asked].count("quick") <= 1


async def test_an_event_is_taken_in_once_though_the_file_is_read_again(folder: Path, disk: Disk) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        for number in range(5):
            disk.fail("write", errno.ENOSPC)
            sent = [lane.submit(f"m{number}{n}", f"{number}{n}") for n in range(3)]
            await asyncio.gather(*sent, return_exceptions=True)
            await lane.submit(f"m{number}", f"after {number}")
            await watcher.until(lambda _: not lane.conversation.open)
        seen = [json.dumps(event["content"]) for event in stored(gateway) if event["role"] != "system"]
        told = [json.dumps(event.content) for event in watcher.events if isinstance(event, User | Assistant)]
        assert told == seen
        assert len(set(told)) == len(told)
        again = Journal(lane.session, gateway.store, lane.journal._history_turns, push=False)
        await again.open()
        refolded = again.conversation
        assert refolded.window.size == lane.conversation.window.size
        assert refolded.cursor == lane.conversation.cursor


# -- the end -------------------------------------------------------------------------------------


async def test_draining_finishes_what_runs_and_begins_nothing(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate), running=1) as gateway:
        lane, waiting = await gateway.lane(), await gateway.lane("waiting")
        await lane.submit("m1", "Hello")
        await gate.entered.wait()
        await lane.submit("m2", "And then")
        await waiting.submit("m1", "Hello")
        draining = asyncio.create_task(gateway.router.drain(10))
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await lane.submit("m3", "Too late")
        assert refused.value.code == "shutting_down"
        gate.open.set()
        await draining
        assert said(gateway) == ["Hello", "And then", "A beginning, then: Hello"]
        assert len(gateway.runner.asked) == 1
        assert [event["role"] for event in stored(gateway, "waiting")] == ["system", "user"]


async def test_closing_does_not_wait_for_a_disk_that_never_comes_back(
    folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "_LAST_WORDS", 0.01)
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate), sleep=sleep) as gateway:
        lane = await gateway.lane()
        await lane.submit("m1", "Hello")
        await gate.entered.wait()
        disk.fail("write", errno.ENOSPC, times=100)
        lane.stop()
        await asleep.wait()
        async with asyncio.timeout(5):
            await lane.close()
        disk.heal()
        assert not [event for event in stored(gateway) if event.get("answers")]


async def test_erasing_breaks_off_what_runs_and_begins_anew(folder: Path) -> None:
    gate = Gate()
    runner = ScriptedRunner(gate)
    async with Gateway(folder, runner) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await gate.entered.wait()
        assert await lane.erase()
        assert (await watcher.done()).outcome == "stopped"
        assert lane.feed.running is None
        assert not await lane.erase()
        runner.reply = echo
        await lane.submit("m1", "Another text under an old id")
        await watcher.done(2)
        assert said(gateway) == ["Another text under an old id", "echo: Another text under an old id"]
        assert runner.asked[-1].history == []


async def test_two_deletions_at_once_leave_a_session_that_goes_on(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await watcher.done()
        assert all(await asyncio.gather(lane.erase(), lane.erase()))
        await lane.submit("m2", "Hello again")
        await watcher.done(2)
        assert said(gateway) == ["Hello again", "echo: Hello again"]


async def test_what_a_failed_deletion_broke_off_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(data_dir: Path, session: SessionId) -> bool:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store_module, "remove", remove)
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await gate.entered.wait()
        gateway.runner.reply = echo
        with pytest.raises(OSError, match="Read-only"):
            await lane.erase()
        await watcher.done()
        await lane.submit("m2", "Are you there?")
        await watcher.done(2)
        assert said(gateway) == ["Hello", "echo: Hello", "Are you there?", "echo: Are you there?"]


async def test_a_deletion_that_fails_when_the_file_is_gone_brings_nothing_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store_module.remove

    def remove(data_dir: Path, session: SessionId) -> bool:
        real(data_dir, session)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store_module, "remove", remove)
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "My secret is 42")
        await gate.entered.wait()
        gateway.runner.reply = echo
        with pytest.raises(OSError, match="Input/output"):
            await lane.erase()
        assert (await watcher.done()).outcome == "stopped"
        await lane.submit("m2", "What do you know of me?")
        await watcher.done(2)
        assert said(gateway) == ["What do you know of me?", "echo: What do you know of me?"]
        assert gateway.runner.asked[-1].history == []


async def test_a_deletion_whose_caller_is_gone_ends_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing, go_on = asyncio.Event(), asyncio.Event()
    async with Gateway(folder) as gateway:
        real = gateway.store.delete

        async def delete(session: SessionId) -> bool:
            removing.set()
            await go_on.wait()
            return await real(session)

        monkeypatch.setattr(gateway.store, "delete", delete)
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await watcher.done()
        caller = asyncio.create_task(lane.erase())
        await removing.wait()
        caller.cancel()
        await asyncio.wait({caller})
        with pytest.raises(Refused):
            await lane.submit("m2", "Too early")
        go_on.set()
        assert await lane.erase()  # the same one
        await lane.submit("m3", "Hello again")
        await watcher.done(2)
        assert said(gateway) == ["Hello again", "echo: Hello again"]


async def test_recording_does_not_wait_for_the_turn(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        lane = await gateway.lane()
        await lane.submit("m1", "Hello")
        await gate.entered.wait()
        await (await gateway.lane()).record([System(name="delivered", turn="t0")])
        assert stored(gateway)[-1]["name"] == "delivered"
        assert not lane.idle
        gate.open.set()


async def test_a_lane_with_an_append_under_way_is_not_idle(folder: Path, disk: Disk) -> None:
    async with Gateway(folder) as gateway:
        lane: Lane = await gateway.lane()
        recording = asyncio.create_task(lane.record([System(name="note", content="x")]))
        await asyncio.sleep(0)
        assert not lane.idle
        await recording
        assert lane.idle


async def test_a_lane_that_closes_while_more_is_expected_begins_nothing(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        await lane.submit("m1", "a part of something", hold=0.2)
        await lane.drain()
        await lane.close()
        assert gateway.runner.asked == []
        assert "m1" in lane.conversation.open


async def test_what_belongs_together_is_answered_together(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "one", hold=1.0)
        await lane.submit("m2", "two", hold=1.0)
        await watcher.done()
        assert [asked(ask) for ask in gateway.runner.asked] == ["one + two"]


async def test_an_insistent_message_beyond_the_bound_is_stored_and_closed(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        lane = await gateway.lane()
        await lane.submit("m0", "first")
        await gate.entered.wait()
        for number in range(MAX_WAITING):
            await lane.submit(f"w{number}", "waits")
        with pytest.raises(Refused):
            await lane.submit("x1", "one too many")
        receipt = await lane.submit("x2", "one too many", insistent=True)
        assert receipt.cursor
        assert "x2" not in lane.conversation.open
        assert "x1" not in lane.conversation.seen
