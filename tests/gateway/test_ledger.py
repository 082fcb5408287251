"""Budgets of the day: what counts, what is refused, and that no restart gives anybody a new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.config import Budget
from gateway.ledger import Ledger, OverBudget
from gateway.turn import Ask, Spending, TurnEvent, TurnUpdate
from session import events
from session.events import Assistant, Event, System, Usage, User
from session.ids import SessionId
from session.store import Store
from tests.fakes.gateway import Gateway, ScriptedRunner, Watcher
from tests.gateway.verbs.lunar import path, wrote

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA, BEN = SessionId("agent:main:telegram:user:1"), SessionId("agent:main:telegram:user:2")
OTHER = SessionId("agent:other:telegram:user:1")


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def budget(**allowances: dict[str, float]) -> Budget:
    return Budget.model_validate(allowances)


def answer(used: Usage | None, ts: datetime = NOON, turn: str = "t1") -> Assistant:
    return Assistant(
        content="x", turn=turn, answers=("m1",), finish="stop", usage=used, ts=events.timestamp(ts)
    )


def ledger(folder: Path, clock: Clock, **budgets: Budget) -> Ledger:
    made = Ledger(Store(folder), clock)
    made.limit(budgets)
    return made


async def test_a_conversation_has_its_own_budget(tmp_path: Path) -> None:
    clock = Clock()
    book = ledger(tmp_path, clock, main=budget(peer={"tokens": 100}))
    anna = book.account(ANNA)
    await anna.check()
    anna.count(answer(Usage(60, 39)))
    await anna.check()
    anna.count(System(name="summary", content="in short", usage=Usage(1, 0)))
    with pytest.raises(OverBudget) as refused:
        await anna.check()
    assert str(refused.value) == (
        "The budget of this conversation, 100 tokens, is used up for today. "
        "There will be more at midnight UTC, in 12 h 0 min."
    )
    await book.account(BEN).check()
    await book.account(OTHER).check()


async def test_an_agent_has_one_for_all_conversations(tmp_path: Path) -> None:
    clock = Clock()
    book = ledger(tmp_path, clock, main=budget(agent={"money": 0.5}))
    book.account(ANNA).count(answer(Usage(10, 10, 0.3)))
    await book.account(BEN).check()
    book.account(ANNA).count(System(name="turn_failed", answers=("m2",), usage=Usage(10, 0, 0.2)))
    for session in (ANNA, BEN):
        with pytest.raises(OverBudget, match=r"for all conversations together, 0\.5000 in money, is used up"):
            await book.account(session).check()
    await book.account(OTHER).check()


async def test_what_turns_under_way_took_counts_at_once_and_once(tmp_path: Path) -> None:
    book = ledger(tmp_path, Clock(), main=budget(agent={"tokens": 100}))
    anna, ben = book.account(ANNA), book.account(BEN)
    anna.spend(Usage(60, 0))
    anna.spend(Usage(70, 0))
    ben.still()
    ben.spend(Usage(30, 0))
    with pytest.raises(OverBudget):
        anna.still()
    ben.count(answer(Usage(30, 0)))  # the same, stored
    anna.spend(None)  # broken off
    ben.still()
    anna.count(answer(Usage(70, 0)))
    with pytest.raises(OverBudget):
        ben.still()


async def test_the_day_is_utc_and_ends(tmp_path: Path) -> None:
    clock = Clock()
    book = ledger(tmp_path, clock, main=budget(peer={"tokens": 10}))
    anna = book.account(ANNA)
    anna.count(answer(Usage(10, 0)))
    clock.now = NOON + timedelta(hours=11, minutes=59)
    with pytest.raises(OverBudget, match="in 1 min"):
        anna.still()
    clock.now = NOON + timedelta(hours=12)
    anna.still()


async def test_a_restart_gives_nobody_a_new_budget(tmp_path: Path) -> None:
    before = [
        User(content='what is "usage":{"input":99999} ?', id="m1", ts=events.timestamp(NOON)),
        answer(Usage(1000, 0), NOON - timedelta(days=1)),
        answer(Usage(40, 0), NOON - timedelta(hours=12), "t2"),
        System(
            name="summary", content="x", usage=Usage(50, 9), ts=events.timestamp(NOON - timedelta(hours=1))
        ),
    ]
    wrote(tmp_path, *before, session=ANNA)
    with path(tmp_path, ANNA).open("ab") as file:  # damaged, and torn
        file.write(
            events.encode(answer(Usage(500, 0))).replace(b"500", b"501") + b'{"role":"assistant","usage":{'
        )
    clock = Clock()
    book = ledger(tmp_path, clock, main=budget(peer={"tokens": 100}))
    # What this process stores while the transcripts are read is in them as well.
    with path(tmp_path, BEN).open("wb") as file:
        file.write(events.encode(answer(Usage(99, 0), clock.now + timedelta(seconds=1))))
    book.account(BEN).count(answer(Usage(99, 0)))
    await book.account(ANNA).check()
    book.account(ANNA).count(answer(Usage(1, 0)))
    with pytest.raises(OverBudget):
        book.account(ANNA).still()
    book.account(BEN).still()


async def test_archived_today_counts_too(tmp_path: Path) -> None:
    wrote(tmp_path, answer(Usage(100, 0), datetime.now(UTC)), session=ANNA)
    store = Store(tmp_path)
    store.start()
    await store.settle(ANNA)  # without hints everything may be open
    assert await store.archive(ANNA) is None
    await store.close()
    await asyncio.sleep(0.002)  # a transcript's time is in milliseconds, and `before` means before
    book = Ledger(Store(tmp_path))
    book.limit({"main": budget(peer={"tokens": 100})})
    with pytest.raises(OverBudget):
        await book.account(ANNA).check()


async def test_without_a_budget_nothing_is_read_and_nothing_waits(tmp_path: Path) -> None:
    book = Ledger(Store(tmp_path / "not there"))
    book.limit({"main": Budget()})
    await book.ready()
    await book.account(ANNA).check()
    book.account(ANNA).count(answer(Usage(10**9, 0)))
    book.account(ANNA).still()


async def test_transcripts_that_cannot_be_listed_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sessions").touch()  # no folder
    book = ledger(tmp_path, Clock(), main=budget(peer={"tokens": 100}))
    waited = asyncio.Event()

    async def pause(seconds: float) -> None:
        waited.set()
        (tmp_path / "sessions").unlink()

    monkeypatch.setattr("gateway.ledger.asyncio.sleep", pause)
    await asyncio.wait_for(book.account(ANNA).check(), 10)
    assert waited.is_set()


# -- in a turn -------------------------------------------------------------------------------------


async def costly(ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
    """Two model calls of 60 tokens each."""
    for number in (1, 2):
        ask.person.more()
        yield Spending(Usage(60 * number, 0))
    yield [Assistant(content="done", finish="stop")]


def closing(watcher: Watcher) -> list[Event]:
    return [event for event in watcher.events if events.closes(event) is not None]


async def test_a_turn_asks_no_more_when_the_budget_is_used_up_on_its_way(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(costly), budget=budget(peer={"tokens": 50})) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m1", "Hello")
        await watcher.done()
        (failed,) = closing(watcher)
        assert isinstance(failed, System)
        assert failed.content
        assert "The budget of this conversation, 50 tokens, is used up for today." in failed.content
        assert failed.usage == Usage(60, 0)
        assert failed.answers == ("m1",)


async def test_a_message_over_budget_is_kept_and_answered_without_the_model(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(costly), budget=budget(peer={"tokens": 120})) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        for number in (1, 2):
            await lane.submit(f"m{number}", "Hello")
            await watcher.done(number)
        first, second = closing(watcher)
        assert isinstance(first, Assistant)
        assert first.usage == Usage(120, 0)
        assert isinstance(second, System)
        assert second.answers == ("m2",)
        assert second.usage is None
        assert len(gateway.runner.asked) == 1
    # The next process reads it from the transcript.
    async with Gateway(folder, ScriptedRunner(costly), budget=budget(peer={"tokens": 120})) as gateway:
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await lane.submit("m3", "Hello")
        await watcher.done()
        assert not gateway.runner.asked
