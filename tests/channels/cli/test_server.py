"""The Unix socket: real connections, lines of JSON."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from channels import wire
from channels.base import Delta, ToolActivity
from channels.cli.server import CliChannel, UnknownName, _Lines, _SocketDoor
from channels.connection import House
from channels.errors import Refused, SocketInUse
from gateway.turn import Ask
from session.events import Assistant, ToolCall, ToolResult
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, asked
from tests.fakes.kept import both_stores
from tests.fakes.ndjson import Client


async def _tools(ask: Ask) -> AsyncGenerator[Any]:
    """A turn with everything in it that a client may be told."""
    for word in ("Let ", "me ", "see. "):
        yield Delta(ask.turn, word)
        await asyncio.sleep(0)
    call = f"c-{ask.turn}"
    yield [Assistant(content="Let me see. ", finish="tool_calls"), ToolCall(name="x", args={}, call_id=call)]
    yield ToolActivity(ask.turn, call, "x", "started")
    yield [ToolResult(name="x", result="42", call_id=call, ok=True)]
    yield ToolActivity(ask.turn, call, "x", "finished")
    for word in ("It ", "is ", asked(ask)):
        yield Delta(ask.turn, word)
        await asyncio.sleep(0)
    yield [Assistant(content=f"It is {asked(ask)}", finish="stop")]


# -- the conversation ----------------------------------------------------------------------------


async def test_what_a_turn_looks_like(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(_tools)) as gateway:
        client = await gateway.client("work")
        assert client.frames == [
            {
                "type": "welcome",
                "protocol": 1,
                "session_id": "agent:main:cli:work",
                "agent": "main",
                "model": "scripted",
                "turns": 0,
                "running": None,
            }
        ]
        await client.say("late", "m1")
        await client.until("done", outcome="completed")
        # `started` is stored without waiting for it: its event may come a little later.
        kinds = [kind for frame in client.frames[1:] if (kind := _kind(frame)) not in ("ack", "system")]
        assert _without_repeats(kinds) == [
            "user", "started", "delta", "assistant", "tool_call",
            "tool", "tool_result", "tool", "delta", "assistant", "done",
        ]  # fmt: skip
        user = next(frame for frame in client.frames if _kind(frame) == "user")
        [ack] = [frame for frame in client.frames if frame["type"] == "ack"]
        assert ack == {"type": "ack", "id": "m1", "cursor": user["cursor"], "queued": 0}
        assert client.frames[-1]["cursor"] == client.frames[-2]["cursor"]


def _kind(frame: dict[str, Any]) -> str:
    return str(frame["event"]["role"] if frame["type"] == "event" else frame["type"])


def _without_repeats(kinds: list[str]) -> list[str]:
    return [kind for number, kind in enumerate(kinds) if number == 0 or kinds[number - 1] != kind]


async def test_two_connections_see_the_same(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(_tools)) as gateway:
        one, two = await gateway.client(), await gateway.client()
        other = await gateway.client("other")
        await one.say("late", "m1")
        for client in (one, two):
            await client.until("done")
        seen = [[frame for frame in client.frames if frame["type"] == "event"] for client in (one, two)]
        assert seen[0] == seen[1]
        assert not [frame for frame in two.frames if frame["type"] == "ack"]
        assert (await two.say("late", "m1"))["queued"] == 0
        assert len(gateway.runner.asked) == 1
        assert len(other.frames) == 1


@both_stores
async def test_every_event_comes_once_wherever_the_connection_breaks(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(_tools), summaries=False) as gateway:
        first = await gateway.client()
        await first.ask("begin")
        cursor = first.cursor
        for broken_after in range(1, 16):
            before = len(gateway.lines())
            client = await gateway.client(after=cursor)
            await client.send("message", id=f"n{broken_after}", text=f"number {broken_after}")
            for _ in range(broken_after):
                frame = await client.next()
                if frame is None or frame["type"] == "done":
                    break  # a client that is slow gets several deltas in one frame
            if client.events:
                cursor = client.cursor
            await client.close()
            again = await gateway.client(after=cursor)
            await again.closed(f"n{broken_after}") if not _answered(client) else None
            stored = [_bare(line) for line in gateway.lines()[before:]]
            assert client.events + again.events == stored
            cursor = again.cursor if again.events else cursor
            await again.close()


def _answered(client: Client) -> bool:
    return any("answers" in event for event in client.events)


def _bare(line: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(line)
    del event["crc"]
    return event


@both_stores
async def test_the_snapshot_of_a_running_turn_goes_on_without_a_seam(folder: Path) -> None:
    steps = asyncio.Semaphore(0)
    words = [f"word{number} " for number in range(6)]

    async def reply(ask: Ask) -> AsyncGenerator[Any]:
        for word in words:
            await steps.acquire()
            yield Delta(ask.turn, word)
        yield [Assistant(content="".join(words), finish="stop")]

    async with Gateway(folder, ScriptedRunner(reply)) as gateway:
        first = await gateway.client()
        await first.say("Go", "m1")
        await first.until("started")
        clients = [first]
        for _ in words:
            clients.append(await gateway.client())
            steps.release()
            await first.until("delta")
        for client in clients:
            answer = await client.closed("m1")
            running = client.frames[0]["running"] or {"text": ""}
            deltas = "".join(frame["text"] for frame in client.frames if frame["type"] == "delta")
            assert running["text"] + deltas == answer["content"]


async def test_the_replay_begins_after_the_cursor(folder: Path) -> None:
    async with Gateway(folder, summaries=False) as gateway:
        client = await gateway.client()
        for number in range(30):
            await client.ask(f"number {number}", f"m{number}")
        cursors = [frame["cursor"] for frame in client.frames if frame["type"] == "event"]
        for after in (0, 10, len(cursors) - 2):
            again = await gateway.client(after=cursors[after])
            await again.closed("m29")
            assert [frame["cursor"] for frame in again.frames[1:]] == cursors[after + 1 :]
            assert "reset" not in again.frames[0]
        fresh = await gateway.client()
        await fresh.closed("m29")
        assert len(fresh.events) == 50


@both_stores
@pytest.mark.parametrize("after", ["nonsense", "", "0.00000000", "\ud800", "ffffffffffffffff.00000000"])
async def test_a_foreign_cursor_means_to_begin_anew(folder: Path, after: str) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        assert (await gateway.client(after=after)).frames[0]["reset"] is True
        await client.ask("Hello", "m1")
        other = await gateway.client("other")
        await other.ask("Hello", "m1")
        for foreign in (after, other.cursor):
            again = await gateway.client(after=foreign)
            assert again.frames[0]["reset"] is True
            await again.closed("m1")
            assert len(again.events) == 4


@both_stores
async def test_history_is_paged_backwards(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        for number in range(5):
            await client.ask(f"number {number}", f"m{number}")
        cursors = [frame["cursor"] for frame in client.frames if frame["type"] == "event"]
        header = 1
        found: list[str] = []
        before: dict[str, str] = {}
        for more in (True, True, False):
            await client.send("history", limit=6, **before)
            page = await client.until("history")
            assert page["more"] is more
            found = [item["cursor"] for item in page["events"]] + found
            before = {"before": found[0]}
        assert found[header:] == cursors
        await client.send("history", limit=6, **before)
        assert (await client.until("history")) == {"type": "history", "events": [], "more": False}


async def test_a_page_of_large_events_ends_early(folder: Path) -> None:
    async with Gateway(folder, summaries=False) as gateway:  # one would be stored behind the last answer
        client = await gateway.client()
        for number in range(10):
            await client.ask(f"{number}" + "x" * 60_000, f"m{number}")
        await client.send("history", limit=200)
        page = await client.until("history")
        assert page["more"]
        assert len(json.dumps(page)) <= wire.MAX_SERVER_FRAME
        assert page["events"][-1]["cursor"] == client.cursor


# -- texts ---------------------------------------------------------------------------------------


@both_stores
@pytest.mark.parametrize(
    "text", ["NUL \x00", "lone \ud800", "\udfff\ud800", "😀 \u2028 \r\n \x7f", "//new", "/usr/bin/x"]
)
async def test_texts_come_back_as_they_were_sent(folder: Path, text: str) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        await client.ask(text, "m1")
        sent = text[1:] if text.startswith("//") else text
        [user] = [event for event in client.events if event["role"] == "user"]
        assert user["content"] == sent
        assert asked(gateway.runner.asked[0]) == sent
        assert _bare(gateway.lines()[1]) == user
        again = await gateway.client()
        assert (await again.closed("m1"))["content"] == f"echo: {sent}"
        # What comes from the disk and what comes from the client are the same message.
        assert (await again.say(text, "m1"))["queued"] == 0
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        await client.say(text, "m1")
        assert not gateway.runner.asked


async def test_commands_are_answered_by_notices(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        assert "/stop" in await client.command("/help")
        assert "Did you mean /help?" in await client.command("/hlep")
        await client.ask("Hello")
        assert "new conversation" in await client.command("/new", "c1")
        lines = len(gateway.lines())
        assert "already" in await client.command("/new", "c1")
        assert len(gateway.lines()) == lines
        assert (await gateway.client()).frames[0]["turns"] == 0


async def test_retrying(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        await client.ask("Hello", "m1")
        await client.send("retry", id="m2", of="m1")
        assert (await client.closed("m2"))["content"] == "echo: Hello"
        await client.send("retry", id="m3", of="nothing")
        error = await client.until("error")
        assert (error["code"], error["id"]) == ("not_found", "m3")


# -- bad clients ---------------------------------------------------------------------------------


async def test_a_frame_that_is_too_large_ends_its_connection_alone(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        good = await gateway.client()
        for prefix in (b"", b'{"type":"hello","protocol":1}\n'):
            bad = await gateway.connect()
            await bad.raw(prefix + b"x" * (wire.MAX_CLIENT_FRAME + 100_000))
            assert (await bad.end())[-1]["code"] == "frame_too_large"
        large = {"type": "message", "id": "m1", "text": "x", "padding": "y" * (wire.MAX_CLIENT_FRAME - 100)}
        await good.raw(json.dumps(large).encode() + b"\n")
        await good.closed("m1")


async def test_who_pastes_a_million_characters_reads_why_they_are_not_taken(folder: Path) -> None:
    """The connection was closed while the client still wrote: it saw a broken pipe, and no error."""
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        await client.send("message", id="m1", text="x" * 1_000_000)
        assert (await client.until("error"))["code"] == "frame_too_large"
        assert await client.end() == []


async def test_a_text_that_is_too_large_is_refused_alone(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        await client.send("message", id="m1", text="ü" * 32_768)
        await client.until("ack", id="m1")
        await client.send("message", id="m2", text="ü" * 32_769)
        error = await client.until("error")
        assert (error["code"], error["id"]) == ("text_too_large", "m2")
        await client.ask("Hello")


async def test_what_has_no_end_was_never_said(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        client = await gateway.client()
        await client.raw(b'\n  \n{"type":"message","id":"m1","text":"half"}')
        await client.close()
        other = await gateway.client()
        await other.ask("whole")
        assert len(gateway.runner.asked) == 1


async def test_a_reader_that_stands_still_is_dropped_and_comes_back(folder: Path) -> None:
    """On a real socket, whose buffers take some megabytes first."""
    chunk = "x" * 60_000

    async def talks(ask: Ask) -> AsyncGenerator[Any]:
        for number in range(100):
            yield [Assistant(content=f"{number} {chunk}", finish="tool_calls")]
        yield [Assistant(content="the end", finish="stop")]

    async with Gateway(folder, ScriptedRunner(talks)) as gateway:
        still, reading = await Client(gateway.socket).connect(limit=1024), await gateway.client()
        await still.send("hello", protocol=1, session="local")
        await reading.say("Go", "m1")
        await reading.closed("m1")
        lane = await gateway.lane()
        async with asyncio.timeout(15):
            while lane.held > 1:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
        await still.close()
        again = await gateway.client(after=reading.frames[2]["cursor"])
        await again.closed("m1")
        assert sum("finish" in event for event in again.events) == 101


async def test_a_client_that_is_gone_is_not_written_to(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        reader, writer = await asyncio.open_unix_connection(str(gateway.socket))
        carrier = _Lines(reader, writer)
        writer.transport.abort()
        with pytest.raises(ConnectionError):
            await carrier.send([b"{}"])
        await carrier.close(1000)


# -- the socket itself ---------------------------------------------------------------------------


async def test_empty_lines_hold_nobody_up() -> None:
    reader = asyncio.StreamReader(limit=wire.MAX_CLIENT_FRAME)
    reader.feed_data(b"\n" * 1000 + b"{}\n")
    turns = 0

    async def somebody_else() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(somebody_else())
    writer = cast("asyncio.StreamWriter", Mock())
    assert await _Lines(reader, writer).receive() == b"{}\n"
    other.cancel()
    assert turns >= 1000


async def test_the_socket_is_for_its_owner_alone(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        status = gateway.socket.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert status.st_mode & 0o777 == 0o600
    assert not gateway.socket.exists()


async def test_a_group_may_be_let_in(folder: Path) -> None:
    channel = CliChannel(folder / "l.sock", House(_NOBODY), group=str(os.getgid()))
    channel.bind()
    assert (folder / "l.sock").stat().st_mode & 0o777 == 0o660
    assert channel._socket is not None
    channel._socket.close()


_NOBODY: Any = None  # nobody connects in these tests


def test_names_that_the_machine_does_not_have() -> None:
    with pytest.raises(UnknownName, match=r"cli\.group"):
        CliChannel(Path("l.sock"), House(_NOBODY), group="no-such-group")
    with pytest.raises(UnknownName, match=r"cli\.operators"):
        CliChannel(Path("l.sock"), House(_NOBODY), operators=["no-such-user"])


async def test_the_socket_of_a_dead_daemon_is_taken_over_and_that_of_a_living_one_is_not(
    folder: Path,
) -> None:
    path = folder / "lunar.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with Gateway(folder) as gateway:
        second = CliChannel(path, gateway.house)
        with pytest.raises(SocketInUse):
            second.bind()
        assert (await (await gateway.client()).ask("Hello"))["content"] == "echo: Hello"


def test_a_file_in_the_way_stays(folder: Path) -> None:
    path = folder / "lunar.sock"
    path.write_text("somebody's notes")
    with pytest.raises(FileExistsError, match="is no socket"):
        CliChannel(path, House(_NOBODY)).bind()
    assert path.read_text() == "somebody's notes"


async def test_a_socket_that_is_not_ours_any_more_is_left_alone(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        gateway.socket.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(gateway.socket))
            successor.listen()
    assert gateway.socket.exists()


async def test_a_shutdown_ends_connections(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        client = await Client(gateway.socket).connect()
        await client.hello()
        await client.say("Hello")
        await gate.entered.wait()
    await client.end()
    await client.close()


@pytest.mark.parametrize(
    ("uid", "operator", "name", "peer"),
    [
        (1000, True, None, "local"),
        (1000, True, "work", "work"),
        (1001, False, None, "uid:1001"),
        (1001, False, "local", "uid:1001"),
        (1001, False, "work", "uid:1001:work"),
    ],
)
def test_the_kernel_says_who_is_calling(uid: int, operator: bool, name: str | None, peer: str) -> None:
    entry = _SocketDoor(uid, operator).enter(wire.Hello(protocol=1, session=name))
    assert entry.peer == ("cli", peer)
    assert entry.operator is operator


@pytest.mark.parametrize(
    "name", ["uid:1000", "Work", "a/b", "..%2f", "x" * 65, "a b", "work\n", "\ud800", "é"]
)
def test_names_that_nobody_may_choose(name: str) -> None:
    with pytest.raises(Refused) as refused:
        _SocketDoor(1000, True).enter(wire.Hello(protocol=1, session=name))
    assert refused.value.code == "unauthorized"
