"""One client's conversation, on a carrier in memory: who is let in, and how it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from channels import connection, sender, wire
from channels.connection import Entry, House, serve
from channels.errors import Refused
from gateway.turn import Ask
from session.events import Assistant
from session.ids import AgentId
from tests.fakes.gateway import Gateway, ScriptedRunner, Tools, cli
from tests.fakes.kept import both_stores

TIMEOUT = 15.0


class Pipe:
    """A `Carrier`: frames in, frames out, and the code with which it was closed."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.handed: list[int] = []  # bytes of each call of `send`
        self.closed: int | None = None
        self.reads = asyncio.Event()  # cleared by a test: the client takes nothing
        self.reads.set()
        self._incoming: asyncio.Queue[bytes | str | Refused | None] = asyncio.Queue()
        self._news = asyncio.Event()

    def say(self, *frames: dict[str, Any] | bytes | Refused | None) -> None:
        for frame in frames:
            self._incoming.put_nowait(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def receive(self) -> bytes | str | None:
        frame = await self._incoming.get()
        if isinstance(frame, Refused):
            raise frame
        return frame

    async def send(self, frames: list[bytes]) -> None:
        self.handed.append(sum(map(len, frames)))
        await self.reads.wait()
        self.sent += [json.loads(frame) for frame in frames]
        self._news.set()

    async def close(self, code: int) -> None:
        self.closed = code

    async def until(self, type: str, count: int = 1) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT):
            while len(found := [frame for frame in self.sent if frame["type"] == type]) < count:
                self._news.clear()
                await self._news.wait()
        return found[count - 1]

    @property
    def errors(self) -> list[str]:
        return [frame["code"] for frame in self.sent if frame["type"] == "error"]


class Visitor:
    """A `Door` for one kind of visitor."""

    def __init__(self, entry: Entry, waits: list[float] | None = None) -> None:
        self.entry = entry
        self.waits = waits or []

    def enter(self, hello: wire.Hello) -> Entry:
        if hello.token == "wrong":
            raise Refused("unauthorized", "The token is wrong.")
        return self.entry

    def spend(self) -> float:
        return self.waits.pop(0) if self.waits else 0.0


HELLO = {"type": "hello", "protocol": 1}


@asynccontextmanager
async def served(house: House, door: Visitor | None = None) -> AsyncIterator[tuple[Pipe, asyncio.Task[None]]]:
    pipe = Pipe()
    task = asyncio.create_task(serve(pipe, door or Visitor(Entry(cli())), house))
    try:
        yield pipe, task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _ended(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(TIMEOUT):
        await task


@pytest.mark.parametrize(
    ("frames", "errors", "code"),
    [
        ([{"type": "stop"}], ["hello_expected"], 1008),
        ([{"type": "hello", "protocol": 2}], ["unsupported_protocol"], 1008),
        ([HELLO | {"token": "wrong"}], ["unauthorized"], 1008),
        ([b"\xff"], ["bad_utf8"], 1007),
        ([b"hello"], ["bad_json"], 1008),
        ([Refused("frame_too_large", "Too large.")], ["frame_too_large"], 1009),
        ([HELLO, Refused("frame_too_large", "Too large.")], ["frame_too_large"], 1009),
        ([HELLO, b"\xff"], ["bad_utf8"], 1007),
        ([HELLO, b"x", b"[]", b"{}"], ["bad_json", "bad_frame", "bad_frame"], 1008),
        ([None], [], 1000),
        ([HELLO, None], [], 1000),
    ],
)
async def test_how_a_connection_ends(folder: Path, frames: list[Any], errors: list[str], code: int) -> None:
    async with Gateway(folder) as gateway, served(gateway.house) as (pipe, task):
        first, *others = frames
        pipe.say(first)
        if first is HELLO:
            await pipe.until("welcome")
        pipe.say(*others)
        await _ended(task)
        assert pipe.errors == errors
        assert pipe.closed == code
        assert all(lane.held == 0 for lane in gateway.router.lanes)


async def test_two_bad_frames_and_a_good_one_go_on(folder: Path) -> None:
    async with Gateway(folder) as gateway, served(gateway.house) as (pipe, task):
        pipe.say(HELLO)
        for _ in range(3):
            pipe.say(b"x", b"x", {"type": "history"})
        await pipe.until("history", 3)
        assert pipe.errors == ["bad_json"] * 6
        assert not task.done()


async def test_a_hello_is_waited_for_but_not_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELLO_SECONDS", 0.02)
    async with Gateway(folder) as gateway, served(gateway.house) as (pipe, task):
        await _ended(task)
        assert pipe.errors == ["hello_expected"]
        assert pipe.closed == 1008
    async with Gateway(folder) as gateway, served(gateway.house) as (pipe, task):
        pipe.say(HELLO)
        await pipe.until("welcome")
        await asyncio.sleep(0.05)  # only the hello has a limit
        assert not task.done()


async def test_a_last_word_that_is_not_taken_holds_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LAST_WORD", 0.01)
    async with Gateway(folder) as gateway, served(gateway.house) as (pipe, task):
        pipe.reads.clear()
        pipe.say({"type": "message", "id": "m1", "text": "hello?"})
        await _ended(task)
        assert (pipe.closed, pipe.sent) == (1008, [])


async def test_a_shutdown_says_goodbye(folder: Path) -> None:
    async with Gateway(folder) as gateway, served(gateway.house) as (pipe, task):
        pipe.say(HELLO)
        await pipe.until("welcome")
        task.cancel()
        await asyncio.wait({task})
        assert pipe.closed == 1001


async def test_many_that_go_in_one_moment_go_a_few_at_a_time(folder: Path) -> None:
    async with Gateway(folder) as gateway, AsyncExitStack() as stack:
        pipes = [(await stack.enter_async_context(served(gateway.house)))[0] for _ in range(100)]
        for pipe in pipes:
            pipe.say(HELLO)
        for pipe in pipes:
            await pipe.until("welcome")
        [lane] = gateway.router.lanes
        for pipe in pipes:
            pipe.say(None)
        held = [lane.held]
        async with asyncio.timeout(TIMEOUT):
            while lane.held:
                await asyncio.sleep(0)
                held.append(lane.held)
        assert held[0] == 100
        assert max(before - after for before, after in pairwise(held)) <= 12


async def test_only_operators_control(folder: Path) -> None:
    control = {"type": "control", "id": "c1", "verb": "status"}
    async with Gateway(folder) as gateway:
        async with served(gateway.house, Visitor(Entry(cli("uid:1001")))) as (pipe, _):
            pipe.say(HELLO, control)
            assert (await pipe.until("error"))["code"] == "not_allowed"
        async with served(House(gateway.router), Visitor(Entry(cli(), operator=True))) as (pipe, _):
            pipe.say(HELLO, control)
            assert (await pipe.until("error"))["id"] == "c1"
        async with served(gateway.house, Visitor(Entry(cli(), operator=True))) as (pipe, _):
            pipe.say(HELLO, control)
            assert (await pipe.until("result"))["data"]["agents"] == {"main": "scripted"}


async def test_a_secret_is_given_back_and_an_unknown_agent_is_not(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        async with served(gateway.house, Visitor(Entry(cli(), secret="s3cret"))) as (pipe, _):
            pipe.say(HELLO)
            assert (await pipe.until("welcome"))["session"] == "s3cret"
        async with served(gateway.house, Visitor(Entry(cli(), AgentId("nobody")))) as (pipe, task):
            pipe.say(HELLO)
            await _ended(task)
            assert pipe.errors == ["not_found"]


async def test_whoever_says_too_much_waits(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        door = Visitor(Entry(cli()), waits=[0.0, 2.5, 2.5])
        async with served(gateway.house, door) as (pipe, _):
            pipe.say(
                HELLO,
                {"type": "message", "id": "m1", "text": "Hello"},
                {"type": "message", "id": "m2", "text": "Hello"},
                {"type": "retry", "id": "m3", "of": "m1"},
                {"type": "stop"},
                {"type": "message", "id": "m2", "text": "Hello"},
            )
            await pipe.until("done", 2)
        refused = [frame for frame in pipe.sent if frame["type"] == "error"]
        assert [(frame["id"], frame["code"], frame["retry_after"]) for frame in refused] == [
            ("m2", "rate_limited", 2.5),
            ("m3", "rate_limited", 2.5),
        ]


async def test_frames_that_do_not_fit_the_moment(folder: Path) -> None:
    async with Gateway(folder) as gateway, served(gateway.house) as (pipe, task):
        pipe.say(HELLO, {"type": "message", "id": "m0", "text": "Hello"})
        await pipe.until("done")
        pipe.say(HELLO, {"type": "approve", "call_id": "c", "allow": True})
        pipe.say({"type": "retry", "id": "m1", "of": "m9"}, {"type": "history", "before": "no.cursor"})
        pipe.say({"type": "message", "id": "m2", "text": "  "})
        await pipe.until("error", 5)
        assert sorted(pipe.errors) == ["bad_frame", "bad_frame", "not_found", "not_found", "not_found"]
        assert not task.done()


async def test_many_frames_at_once_leave_room_for_others(folder: Path) -> None:
    """Frames that are there already must not be carried out in one go."""
    async with Gateway(folder) as gateway, served(gateway.house) as (pipe, _):
        pipe.say(HELLO)
        await pipe.until("welcome")
        pipe.say(*[{"type": "stop"}] * 5000)
        others = 0
        while not pipe._incoming.empty():
            await asyncio.sleep(0)
            others += 1
        assert others > 1000


@pytest.mark.parametrize("replaying", [False, True])
async def test_a_client_that_does_not_read_is_dropped_and_nobody_else(folder: Path, replaying: bool) -> None:
    words = "x" * 8192

    async def talks(ask: Ask) -> AsyncIterator[Any]:
        for number in range(400):
            yield [Assistant(content=f"{number} {words}", finish="tool_calls")]
        yield [Assistant(content="The end", finish="stop")]

    async with Gateway(folder, ScriptedRunner(talks)) as gateway:
        async with served(gateway.house) as (slow, slow_task), served(gateway.house) as (quick, _):
            for pipe in (slow, quick):
                if pipe is slow and replaying:
                    pipe.reads.clear()  # not even the welcome
                pipe.say(HELLO)
            await quick.until("welcome")
            if not replaying:
                await slow.until("welcome")
                slow.reads.clear()
            quick.say({"type": "message", "id": "m1", "text": "Go"})
            await _ended(slow_task)
            assert slow.closed == connection.TOO_SLOW
            await quick.until("event", 403)
            told = [frame["event"]["content"].split()[0] for frame in quick.sent if _is_step(frame)]
            assert told == [str(number) for number in range(400)]
        # It comes back with its cursor, and has missed nothing.
        events = [frame for frame in slow.sent if frame["type"] == "event"]
        after = {"after": events[-1]["cursor"]} if events else {"after": _first(quick)}
        async with served(gateway.house) as (again, _):
            again.say(HELLO | after)
            await again.until("event", 403 - max(1, len(events)))
            both = [
                frame["cursor"] for pipe in (slow, again) for frame in pipe.sent if frame["type"] == "event"
            ]
            whole = [frame["cursor"] for frame in quick.sent if frame["type"] == "event"]
            assert (both if events else [_first(quick), *both]) == whole


async def test_a_replay_of_large_events_comes_as_the_client_takes_it(folder: Path) -> None:
    """All fifty were written at once: a client that never read them cost tens of megabytes each time."""

    async def talks(ask: Ask) -> AsyncIterator[Any]:
        for number in range(40):
            yield [Assistant(content=f"{number} " + "x" * 60_000, finish="tool_calls")]
        yield [Assistant(content="The end", finish="stop")]

    async with Gateway(folder, ScriptedRunner(talks)) as gateway:
        async with served(gateway.house) as (first, _):
            first.say(HELLO, {"type": "message", "id": "m1", "text": "Go"})
            await first.until("done")
        async with served(gateway.house) as (later, _):
            later.say(HELLO)
            await later.until("event", 42)
            assert max(later.handed) < sender._BATCH + 70_000


def _is_step(frame: dict[str, Any]) -> bool:
    return bool(frame["type"] == "event" and frame["event"].get("finish") == "tool_calls")


def _first(pipe: Pipe) -> str:
    return str(next(frame["cursor"] for frame in pipe.sent if frame["type"] == "event"))


@both_stores
async def test_who_comes_back_to_a_deleted_session_begins_anew(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        async with served(gateway.house) as (pipe, _):
            pipe.say(HELLO, {"type": "message", "id": "m1", "text": "Hello"})
            after = (await pipe.until("ack"))["cursor"]
        assert await gateway.router.delete(cli())
        async with served(gateway.house) as (pipe, _):
            pipe.say(HELLO | {"after": after})
            assert (await pipe.until("welcome"))["reset"]


@both_stores
async def test_whoever_comes_is_told_what_is_being_asked(folder: Path) -> None:
    tools = Tools("c1", "c2")
    async with Gateway(folder, ScriptedRunner(tools)) as gateway:
        async with served(gateway.house) as (pipe, _):
            pipe.say(HELLO, {"type": "message", "id": "m1", "text": "Delete it"})
            await pipe.until("approval", 2)
            pipe.say({"type": "approve", "call_id": "c1", "allow": True})
            await pipe.until("ack")
            await _settled(gateway, 1)
        async with served(gateway.house) as (pipe, _), served(gateway.house) as (other, _):
            pipe.say(HELLO)
            other.say(HELLO)
            asked = await pipe.until("approval")
            await other.until("approval")
            assert (asked["call_id"], asked["name"], asked["args"]) == ("c2", "delete", {"path": "c2"})
            assert asked["number"] == 2
            kinds = [frame["type"] for frame in pipe.sent]
            assert kinds == ["welcome", *["event"] * (len(kinds) - 2), "approval"]
            pipe.say({"type": "approve", "call_id": "c2", "allow": False})
            await pipe.until("done")
            other.say({"type": "approve", "call_id": "c2", "allow": True})
            assert (await other.until("error"))["code"] == "not_found"
            decided = [frame["event"] for frame in other.sent if frame["type"] == "event"]
            assert [(e["call_id"], e["allow"]) for e in decided if e.get("name") == "approval"] == [
                ("c1", True),
                ("c2", False),
            ]
        assert tools.ran == ["c1"]


async def _settled(gateway: Gateway, open_questions: int) -> None:
    """Wait until the tools that may run have run, and so many ask."""
    lane = await gateway.lane()
    async with asyncio.timeout(TIMEOUT):
        while len(lane.conversation.unfinished_calls) > open_questions:  # noqa: ASYNC110 - it may be so already
            await asyncio.sleep(0.001)
