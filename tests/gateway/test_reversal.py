"""/undo and /retry: what the model no longer sees, and that every message keeps one closing event."""

import asyncio
import errno
import json
from pathlib import Path
from typing import Any

import pytest

from channels.base import Answer, Receipt
from channels.errors import Refused
from gateway import reversal
from gateway.reversal import NOTHING_TO_ASK, NOTHING_TO_UNDO, SUMMARISED, UNANSWERED
from gateway.seat import Seat
from session import transcript
from session.events import Assistant, System
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Watcher, asked, cli, echo
from tests.session.disk import Disk


def events(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.lines()]


async def talk(gateway: Gateway, *questions: str) -> Seat:
    seat = await gateway.router.session(cli())
    watcher = Watcher(await gateway.lane())
    for count, question in enumerate(questions, 1):
        await seat.submit(f"id of {question}", question)
        await watcher.done(count)
    return seat


async def say(seat: Seat, id: str, text: str) -> str:
    answer = await seat.submit(id, text)
    assert isinstance(answer, Answer)
    return answer.text


def seen(gateway: Gateway) -> list[str]:
    """The questions before the newest one, as the model saw them."""
    return [message.content for exchange in gateway.runner.asked[-1].history for message in exchange.messages]


# -- /undo ---------------------------------------------------------------------------------------------


async def test_undo_hides_the_last_exchange_and_names_it(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one", "two", "three")
        assert "“three”" in await say(seat, "u1", "/undo")
        assert "“two”" in await say(seat, "u2", "/undo")
        assert await say(seat, "u2", "/undo") == "/undo was carried out already."
        await talk(gateway, "four")
        assert seen(gateway) == ["one"]
        assert [event["content"] for event in events(gateway) if event["role"] == "user"] == [
            "one", "two", "three", "four",
        ]  # fmt: skip


async def test_what_was_taken_back_stays_so_after_a_restart(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one", "two", "three")
        await say(seat, "u1", "/undo")
    async with Gateway(folder) as gateway:
        seat = await talk(gateway)
        assert await say(seat, "u1", "/undo") == "/undo was carried out already."
        assert "“two”" in await say(seat, "u2", "/undo")
        await talk(gateway, "four")
        assert seen(gateway) == ["one"]


async def test_there_may_be_nothing_to_take_back(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await talk(gateway)
        assert await say(seat, "u1", "/undo") == NOTHING_TO_UNDO
        await talk(gateway, "one")
        await say(seat, "u2", "/undo")
        assert await say(seat, "u3", "/undo") == NOTHING_TO_UNDO
        await talk(gateway, "two")
        await say(seat, "c1", "/new")
        assert await say(seat, "u4", "/undo") == NOTHING_TO_UNDO
        assert await say(seat, "r1", "/retry") == NOTHING_TO_ASK


async def test_two_at_once_go_two_steps_back(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one", "two", "three")
        answers = await asyncio.gather(say(seat, "u1", "/undo"), say(seat, "u2", "/undo"))
        assert ["“three”" in answers[0], "“two”" in answers[1]] == [True, True]
        await talk(gateway, "four")
        assert seen(gateway) == ["one"]


async def test_undo_of_what_is_being_answered_stops_it(folder: Path) -> None:
    gate = Gate("Well")
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        seat = await talk(gateway, "one")
        runner.reply = gate
        watcher = Watcher(await gateway.lane())
        await seat.submit("m2", "two")
        await gate.entered.wait()
        assert "“two” and the reply that was being written" in await say(seat, "u1", "/undo")
        assert (await watcher.done()).outcome == "stopped"
        runner.reply = echo
        await talk(gateway, "three")
        assert seen(gateway) == ["one"]


async def test_a_message_that_waits_is_not_passed_over(folder: Path) -> None:
    gate = Gate("Well")
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        seat = await talk(gateway)
        await seat.submit("m1", "one")
        await gate.entered.wait()
        await seat.submit("m2", "two")
        assert await say(seat, "u1", "/undo") == UNANSWERED
        assert await say(seat, "r1", "/retry") == UNANSWERED
        gate.open.set()


async def test_what_a_summary_tells_of_cannot_be_taken_back(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one", "two", "three")
        lane = await gateway.lane()
        await lane.record([System(name="summary", content="s", covers=gateway.runner.asked[1].turn)])
        await say(seat, "u1", "/undo")
        assert await say(seat, "u2", "/undo") == SUMMARISED
        await talk(gateway, "four")
        assert seen(gateway) == ["one", "two"]


async def test_a_disk_that_refuses_takes_nothing_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr(transcript, "os", disk)
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one", "two")
        for command in ("/undo", "/retry"):
            disk.fail("write", errno.ENOSPC)
            with pytest.raises(Refused):
                await seat.submit(f"c{command}", command)
        await talk(gateway, "three")
        assert seen(gateway) == ["one", "two"]


# -- /retry --------------------------------------------------------------------------------------------


async def test_retry_asks_the_last_question_as_a_message_of_its_own(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one", "two")
        watcher = Watcher(await gateway.lane())
        receipt = await seat.submit("r1", "/retry")
        assert isinstance(receipt, Receipt)
        await watcher.done()
        assert asked(gateway.runner.asked[-1]) == "two"
        assert seen(gateway) == ["one"]
        assert await seat.submit("r1", "/retry") == Receipt(receipt.cursor, 0)
        with pytest.raises(Refused):
            await seat.submit("r1", "/undo")
        with pytest.raises(Refused):
            await seat.submit("id of one", "/retry")
        assert len(gateway.runner.asked) == 3
        closed = [id for event in events(gateway) for id in event.get("answers", ())]
        assert closed == ["id of one", "id of two", "r1"]
    async with Gateway(folder) as gateway:
        seat = await talk(gateway)
        assert await seat.submit("r1", "/retry") == Receipt(receipt.cursor, 0)
        assert not gateway.runner.asked
        watcher = Watcher(await gateway.lane())
        await seat.submit("r2", "/retry")
        await watcher.done()
        assert asked(gateway.runner.asked[-1]) == "two"
        assert seen(gateway) == ["one"]


async def test_a_retry_that_comes_twice_at_once_runs_once(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one")
        watcher = Watcher(await gateway.lane())
        first, second = await asyncio.gather(seat.submit("r1", "/retry"), seat.submit("r1", "/retry"))
        await watcher.done()
        assert isinstance(first, Receipt)
        assert isinstance(second, Receipt)
        assert first.cursor == second.cursor
        assert len(gateway.runner.asked) == 2


async def test_retry_of_several_messages_asks_them_all(folder: Path) -> None:
    gate = Gate("")
    runner = ScriptedRunner(gate)
    async with Gateway(folder, runner) as gateway:
        seat = await talk(gateway)
        watcher = Watcher(await gateway.lane())
        await seat.submit("m0", "zero")
        await gate.entered.wait()
        await seat.submit("m1", "one")
        await seat.submit("m2", "two")
        gate.open.set()
        await watcher.done(2)
        runner.reply = echo
        await seat.submit("r1", "/retry")
        await watcher.done(3)
        assert asked(runner.asked[-1]) == "one\n\ntwo"
        await seat.submit("r2", "/retry")
        await watcher.done(4)
        assert asked(runner.asked[-1]) == "one\n\ntwo"
        assert [event["of"] for event in events(gateway) if "of" in event] == [["m1", "m2"]] * 2
        assert seen(gateway) == ["zero"]


async def test_retry_asks_again_what_was_steered_into_a_turn(folder: Path) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def takes_in(ask: Any) -> Any:
        entered.set()
        await go_on.wait()
        more = ask.person.more()
        yield [Assistant(content=f"{len(more)} more", finish="stop")]

    runner = ScriptedRunner(takes_in)
    async with Gateway(folder, runner, mode="steer") as gateway:
        seat = await talk(gateway)
        watcher = Watcher(await gateway.lane())
        await seat.submit("m1", "one")
        await entered.wait()
        await seat.submit("m2", "and quickly")
        go_on.set()
        await watcher.done()
        assert events(gateway)[-1]["answers"] == ["m1", "m2"]
        runner.reply = echo
        await seat.submit("r1", "/retry")
        await watcher.done(2)
        assert asked(runner.asked[-1]) == "one\n\nand quickly"
        assert runner.asked[-1].history == []


@pytest.mark.parametrize("mode", ["collect", "steer", "interrupt"])
async def test_retry_of_what_is_being_answered_begins_anew(folder: Path, mode: Any) -> None:
    gate = Gate("Well")
    runner = ScriptedRunner(gate)
    async with Gateway(folder, runner, mode=mode) as gateway:
        seat = await talk(gateway)
        watcher = Watcher(await gateway.lane())
        await seat.submit("m1", "one")
        await gate.entered.wait()
        runner.reply = echo
        await seat.submit("r1", "/retry")
        assert (await watcher.done()).outcome == "stopped"
        assert (await watcher.done(2)).outcome == "completed"
        assert asked(runner.asked[-1]) == "one"
        assert runner.asked[-1].history == []
        closed = [event["answers"] for event in events(gateway) if "answers" in event]
        assert closed == [["m1"], ["r1"]]


async def test_retry_after_a_failure(folder: Path) -> None:
    async def fails(ask: Any) -> Any:
        yield [System(name="turn_failed", content="Sorry.")]

    runner = ScriptedRunner(fails)
    async with Gateway(folder, runner) as gateway:
        seat = await talk(gateway, "one")
        runner.reply = echo
        watcher = Watcher(await gateway.lane())
        await seat.submit("r1", "/retry")
        await watcher.done()
        assert asked(runner.asked[-1]) == "one"
        assert runner.asked[-1].history == []


async def test_a_question_that_has_grown_too_long_is_not_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reversal, "MAX_TEXT", 10)
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one and all the rest")
        with pytest.raises(Refused) as refused:
            await seat.submit("r1", "/retry")
        assert refused.value.code == "text_too_large"


# -- the retry frame -----------------------------------------------------------------------------------


async def test_the_frame_takes_the_place_of_the_last_exchange(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await talk(gateway, "one", "two")
        watcher = Watcher(await gateway.lane())
        first = await seat.retry("r1", "id of two")
        await watcher.done()
        assert seen(gateway) == ["one"]
        assert (await seat.retry("r1", "id of two")).cursor == first.cursor
        assert len(gateway.runner.asked) == 3
        await seat.retry("r2", "id of one")  # further back: asked again, and nothing is taken back
        await watcher.done(2)
        assert asked(gateway.runner.asked[-1]) == "one"
        assert seen(gateway) == ["one", "two"]
        with pytest.raises(Refused):
            await seat.retry("r3", "nobody's")
