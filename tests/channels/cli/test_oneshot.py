"""One question, one answer, one exit code."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from channels import wire
from channels.cli import oneshot
from channels.cli.carrier import CannotChat, open_socket
from channels.cli.link import Link, Pace
from channels.cli.output import Frames, Piped, Shown
from channels.errors import ErrorCode
from session import events
from tests.fakes.gateway_stub import Peer, SocketGateway


class Written(io.StringIO):
    """What was written, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def write(self, text: str) -> int:
        self._news.set()
        return super().write(text)

    async def has(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text not in self.getvalue():
                self._news.clear()
                await self._news.wait()


class Tty(Written):
    def isatty(self) -> bool:
        return True


class Asked:
    """A question on its way, and what it has written so far."""

    def __init__(self, gateway: SocketGateway, text: str, kind: type[Piped] = Piped) -> None:
        self.stdout = Tty() if kind is Shown else Written()
        self.stderr = io.StringIO()
        link = Link(
            partial(open_socket, gateway.path),
            wire.Hello(protocol=wire.PROTOCOL, session="local"),
            pace=Pace(first=0.01, most=0.02),
        )
        self._task = asyncio.create_task(oneshot.ask(link, text, kind(self.stdout, self.stderr)))

    async def ends(self) -> tuple[int, str, str]:
        """The exit code, stdout and stderr."""
        async with asyncio.timeout(10):
            code = await self._task
        return code, self.stdout.getvalue(), self.stderr.getvalue()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[SocketGateway]:
    stub = SocketGateway(tmp_path / "s.sock")
    await stub.start()
    yield stub
    await stub.stop()


async def asked_by(gateway: SocketGateway) -> tuple[Peer, str]:
    """The asking client, welcomed and acknowledged, and the id of its message."""
    peer = await gateway.accept()
    await peer.welcome()
    return peer, (await peer.take()).id


async def test_prints_the_answer_alone(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "What time is it?")
    peer = await gateway.accept()
    await peer.welcome(turns=2)
    await peer.event(events.User(content="old", id="old"))
    await peer.event(events.Assistant(content="long ago", turn="t0", answers=("old",), finish="stop"))
    message = await peer.take()
    assert message.text == "What time is it?"
    await peer.answer("t1", message.id, "It's 10:05 AM.")
    assert await asked.ends() == (0, "It's 10:05 AM.\n", "")


async def test_waits_behind_the_turns_of_others(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "mine")
    peer, mine = await asked_by(gateway)
    await peer.answer("t1", "theirs", "Not for you.")
    await peer.answer("t2", mine, "For you.")
    assert await asked.ends() == (0, "For you.\n", "")


async def test_prints_what_was_said_before_a_tool_call_too(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "weather?")
    peer, mine = await asked_by(gateway)
    await peer.start("t1", mine)
    await peer.event(events.Assistant(content="Let me look.\n", turn="t1", finish="tool_calls"))
    await peer.event(events.ToolCall(name="weather", call_id="c1", turn="t1"))
    await peer.event(events.ToolResult(name="weather", call_id="c1", result="rain", ok=True, turn="t1"))
    await peer.finish("t1", mine, "It rains.\n")
    assert await asked.ends() == (0, "Let me look.\n\nIt rains.\n", "")


async def test_prints_what_was_said_since_it_joined_a_running_turn(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "the blue one")
    peer, mine = await asked_by(gateway)
    await peer.start("t1", "m0")
    await peer.event(events.Assistant(content="Looking.", turn="t1", finish="tool_calls"))
    await peer.event(events.System(name="steered", turn="t1", messages=(mine,)))
    closing = events.Assistant(content="Found.", turn="t1", answers=("m0", mine), finish="stop")
    await peer.event(closing)
    assert await asked.ends() == (0, "Found.\n", "")


async def test_a_tool_that_asks_is_answered_elsewhere(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "delete it")
    peer, mine = await asked_by(gateway)
    question = wire.ApprovalFrame(turn="t0", call_id="c0", name="other", args={}, expires="")
    await peer.say(question)
    await peer.start("t1", mine)
    await peer.say(wire.ApprovalFrame(turn="t1", call_id="c1", name="delete", args={"path": "x"}, expires=""))
    await peer.finish("t1", mine, "Done.\n")
    code, stdout, stderr = await asked.ends()
    assert (code, stdout) == (0, "Done.\n")
    assert stderr.startswith(
        'lunar: delete {"path": "x"} asks whether it may run. Say /yes or /no in another'
    )
    assert stderr.count("\n") == 1


async def test_a_pipe_gets_every_byte(gateway: SocketGateway) -> None:
    reply = "a\x1b]0;t\x07\tb\r\n\n"
    asked = Asked(gateway, "go")
    peer, mine = await asked_by(gateway)
    await peer.answer("t1", mine, reply)
    assert await asked.ends() == (0, reply, "")


async def test_a_terminal_sees_it_as_it_is_written_and_harmless(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "go", Shown)
    peer, mine = await asked_by(gateway)
    await peer.start("t1", mine)
    for text in ("Hello \x1b]0;", "x\x9b\x07"):
        await peer.say(wire.DeltaFrame(turn="t1", text=text))
    await asked.stdout.has("Hello ]0;x")
    await peer.finish("t1", mine, "Hello \x1b]0;x\x9b\x07 world")
    assert await asked.ends() == (0, "Hello ]0;x world\n", "")


async def test_a_terminal_sees_a_repeated_turn_once(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "go", Shown)
    peer, mine = await asked_by(gateway)
    await peer.start("t1", mine)
    await peer.say(wire.DeltaFrame(turn="t1", text="Hello wo"))
    await peer.close()
    again = await gateway.accept()
    await again.welcome()
    await again.start("t1", mine, attempt=2)
    await again.say(wire.DeltaFrame(turn="t1", text="Hell"), wire.DeltaFrame(turn="t1", text="o world"))
    await again.finish("t1", mine, "Hello world")
    code, stdout, stderr = await asked.ends()
    assert (code, stdout) == (0, "Hello wo\nrld\n")
    assert "The connection was lost" in stderr


async def test_says_where_a_repeated_turn_says_something_else(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "go", Shown)
    peer, mine = await asked_by(gateway)
    await peer.start("t1", mine)
    await peer.say(wire.DeltaFrame(turn="t1", text="Hello"))
    await peer.start("t1", mine, attempt=2)
    await peer.say(wire.DeltaFrame(turn="t1", text="Good day"))
    await peer.finish("t1", mine, "Good day")
    code, stdout, stderr = await asked.ends()
    assert (code, stdout) == (0, "Hello\nGood day\n")
    assert "begun anew" in stderr


async def test_json_prints_the_frames_as_received(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "go", Frames)
    peer, mine = await asked_by(gateway)
    await peer.raw(b'{"type":"news","of":"tomorrow"}')
    await peer.answer("t1", mine, "Hi")
    code, stdout, _ = await asked.ends()
    assert code == 0
    kinds = [line.split('"')[3] for line in stdout.splitlines()]
    assert kinds == ["welcome", "ack", "event", "news", "started", "delta", "event"]


async def test_a_command_prints_its_notice(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "/status")
    peer = await gateway.accept()
    await peer.welcome()
    message = await peer.hear(wire.Message)
    await peer.say(wire.Notice(text="for somebody else", id="other"))
    await peer.say(wire.Notice(text="All is well.", id=message.id))
    assert await asked.ends() == (0, "All is well.\n", "")


@pytest.mark.parametrize(
    ("finish", "code", "note"),
    [
        ("cut", 1, "cut off"),
        ("length", 0, "length limit"),
        ("filtered", 1, "withheld"),
        ("stopped", 130, "stopped"),
    ],
)
async def test_tells_how_a_reply_ended(
    gateway: SocketGateway, finish: events.Finish, code: int, note: str
) -> None:
    asked = Asked(gateway, "go")
    peer, mine = await asked_by(gateway)
    await peer.answer("t1", mine, "So far", finish)
    exit_code, stdout, stderr = await asked.ends()
    assert (exit_code, stdout) == (code, "So far\n")
    assert note in stderr


async def test_a_failed_turn_is_told_on_stderr(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "go")
    peer, mine = await asked_by(gateway)
    await peer.start("t1", mine)
    why = "The model is away.\x1b[2J"
    await peer.event(events.System(name="turn_failed", turn="t1", answers=(mine,), content=why))
    assert await asked.ends() == (1, "", "lunar: The model is away.[2J\n")


@pytest.mark.parametrize(("error", "exit_code"), [("queue_full", 75), ("id_conflict", 1)])
async def test_a_refused_message_is_told_on_stderr(
    gateway: SocketGateway, error: ErrorCode, exit_code: int
) -> None:
    asked = Asked(gateway, "go")
    peer = await gateway.accept()
    await peer.welcome()
    message = await peer.hear(wire.Message)
    await peer.say(wire.Error(code=error, message="Not now.", id=message.id))
    assert await asked.ends() == (exit_code, "", "lunar: Not now.\n")


async def test_answers_once_over_a_lost_connection(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "go")
    peer, mine = await asked_by(gateway)
    await peer.start("t1", mine)
    await gateway.stop()
    await gateway.start()
    again = await gateway.accept()
    assert (await again.welcome()).after == "c1"
    await again.finish("t1", mine, "Here I am.")
    code, stdout, stderr = await asked.ends()
    assert (code, stdout) == (0, "Here I am.\n")
    assert stderr.count("\n") == 1
    await again.hears_nothing_more()


async def test_takes_up_a_turn_that_runs_at_the_welcome(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "go", Shown)
    peer, mine = await asked_by(gateway)
    await peer.close()
    again = await gateway.accept()
    await again.welcome(running=wire.RunningFrame(turn="t1", answers=(mine,), text="One, two"))
    await again.say(wire.DeltaFrame(turn="t1", text=", three"))
    await again.finish("t1", mine, "One, two, three")
    code, stdout, _ = await asked.ends()
    assert (code, stdout) == (0, "One, two, three\n")


async def test_says_that_no_daemon_runs(tmp_path: Path) -> None:
    with pytest.raises(CannotChat, match="`lunar run`"):
        await Asked(SocketGateway(tmp_path / "none.sock"), "go").ends()


@pytest.mark.parametrize("started", [True, False])
async def test_ctrl_c_stops_its_own_turn(gateway: SocketGateway, started: bool) -> None:
    asked = Asked(gateway, "go", Frames)
    peer, mine = await asked_by(gateway)
    if started:
        await peer.start("t1", mine)
    await asked.stdout.has('"type":"started"' if started else '"type":"ack"')
    os.kill(os.getpid(), signal.SIGINT)
    await peer.hear(wire.Stop)
    await peer.hears_nothing_more()
    assert (await asked.ends())[0] == 130


async def test_ctrl_c_does_not_stop_a_turn_that_is_ahead(gateway: SocketGateway) -> None:
    asked = Asked(gateway, "go", Frames)
    peer = await gateway.accept()
    await peer.welcome()
    await peer.take(queued=1)
    await asked.stdout.has('"type":"ack"')
    os.kill(os.getpid(), signal.SIGINT)
    await peer.hears_nothing_more()
    assert (await asked.ends())[0] == 130
