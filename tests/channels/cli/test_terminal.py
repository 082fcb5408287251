"""The terminal's face: what a person sees who types at a real editor, against a scripted gateway."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from io import StringIO
from pathlib import Path
from typing import cast

import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from channels import wire
from channels.cli.carrier import CannotChat, open_socket
from channels.cli.link import Link, Pace
from channels.cli.terminal import Terminal
from session import events
from tests.fakes.gateway_stub import Peer, SocketGateway
from tests.fakes.screen import Screen

CTRL_C, CTRL_D, ALT_ENTER, TAB, UP = "\x03", "\x04", "\x1b\r", "\t", "\x1b[A"


class Desk:
    """A person at a terminal."""

    def __init__(self, gateway: SocketGateway, history: Path, keys: PipeInput, screen: Screen) -> None:
        link = Link(
            partial(open_socket, gateway.path),
            wire.Hello(protocol=wire.PROTOCOL, session="local"),
            pace=Pace(first=0.01, most=0.02),
        )
        output = Vt100_Output(
            cast(StringIO, screen), lambda: Size(screen.rows, screen.columns), term="xterm", enable_cpr=False
        )
        nowhere = StringIO()
        terminal = Terminal(link, history, nowhere, nowhere, input=keys, output=output)
        self._keys = keys
        self._gateway = gateway
        self.screen = screen
        self.task = asyncio.create_task(terminal.run())

    def type(self, text: str) -> None:
        self._keys.send_text(text)

    async def connected(self, **welcome: object) -> Peer:
        """The gateway's side, after the welcome."""
        peer = await self._gateway.accept()
        await peer.welcome(**welcome)
        return peer

    async def leaves(self) -> int:
        async with asyncio.timeout(10):
            return await self.task


@asynccontextmanager
async def sitting(gateway: SocketGateway, folder: Path, rows: int = 24) -> AsyncIterator[Desk]:
    with create_pipe_input() as keys:
        desk = Desk(gateway, folder / "state" / "history", keys, Screen(60, rows))
        try:
            yield desk
        finally:
            desk.task.cancel()
            await asyncio.gather(desk.task, return_exceptions=True)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[SocketGateway]:
    stub = SocketGateway(tmp_path / "s.sock")
    await stub.start()
    yield stub
    await stub.stop()


@pytest.fixture
async def desk(gateway: SocketGateway, tmp_path: Path) -> AsyncIterator[Desk]:
    async with sitting(gateway, tmp_path) as desk:
        yield desk


async def test_a_conversation(desk: Desk) -> None:
    peer = await desk.connected(turns=12)
    await desk.screen.shows("📜 Loaded 12 previous turns")
    desk.type("What time is it?\r")
    message = await peer.take()
    assert message.text == "What time is it?"
    await desk.screen.shows("Ctrl-C stops")
    await peer.answer("t1", message.id, "It's **10:05** AM.")
    await desk.screen.shows("› What time is it?\n\nIt's 10:05 AM.\n\n›")
    await desk.screen.hides("Ctrl-C stops")
    assert desk.screen.text.count("What time") == 1


async def test_nothing_is_said_of_no_turns(desk: Desk) -> None:
    await desk.connected(turns=0)
    await desk.screen.shows("Ctrl-D leaves")
    assert "Loaded" not in desk.screen.text


async def test_shows_the_last_exchange_and_what_is_unanswered(desk: Desk) -> None:
    peer = await desk.connected(turns=3)
    await peer.event(events.User(content="very old", id="m1"))
    await peer.event(events.Assistant(content="Long ago.", turn="t1", answers=("m1",), finish="stop"))
    await peer.event(events.User(content="asked before", id="m2"))
    await peer.event(events.User(content="still open", id="m3"))
    await peer.event(events.Assistant(content="Told before.", turn="t2", answers=("m2",), finish="stop"))
    await desk.screen.shows("still open")
    assert "› asked before\n\nTold before.\n\nyou (elsewhere) › still open" in desk.screen.text
    assert "old" not in desk.screen.text.replace("Told", "")
    await peer.answer("t3", "m3", "Here.")
    await desk.screen.shows("Here.")


async def test_types_ahead_while_a_reply_is_written(desk: Desk) -> None:
    peer = await desk.connected()
    desk.type("one\r")
    first = await peer.take()
    await peer.start("t1", first.id)
    await peer.say(wire.DeltaFrame(turn="t1", text="Thinking about"))
    await desk.screen.shows("Thinking about")
    desk.type("two\r")
    second = await peer.take(queued=1)
    await desk.screen.shows("waiting: two")
    await peer.finish("t1", first.id, "Thinking about one.")
    await peer.answer("t2", second.id, "Reply to two.")
    await desk.screen.shows("› one\n\nThinking about one.\n\n› two\n\nReply to two.\n\n›")
    await desk.screen.hides("waiting")


@pytest.mark.parametrize(
    "reply",
    [
        "\n\n".join(f"Paragraph {n} of a long reply." for n in range(30)),
        "\n".join(f"{n}. item {n}" for n in range(1, 50)),
        "```python\n" + "\n".join(f"line_{n} = {n}" for n in range(50)) + "\n```\n\nDone.",
        "| n | square |\n|---|---|\n" + "\n".join(f"| {n} | {n * n} |" for n in range(40)) + "\n\nDone.",
    ],
    ids=["paragraphs", "list", "code", "table"],
)
async def test_a_long_reply_is_whole_and_once_in_the_scroll_back(
    gateway: SocketGateway, tmp_path: Path, reply: str
) -> None:
    async def shown(piece: int) -> str:
        folder = tmp_path / str(piece)
        async with sitting(gateway, folder, rows=14) as desk:
            peer = await desk.connected()
            desk.type("go\r")
            message = await peer.take()
            await peer.start("t1", message.id)
            for at in range(0, len(reply), piece):
                await peer.say(wire.DeltaFrame(turn="t1", text=reply[at : at + piece]))
                await desk.screen.shows(reply[at : at + piece].split("\n")[-1].strip("|`* ")[-3:])
            await peer.finish("t1", message.id, reply)
            await desk.screen.hides("Ctrl-C stops")
            desk.type("the end")
            await desk.screen.shows("› the end")
            return desk.screen.text

    at_once = await shown(len(reply))
    assert [line.strip() for line in (await shown(97)).split("\n")] == [
        line.strip() for line in at_once.split("\n")
    ]


async def test_a_repeated_turn_is_shown_once(desk: Desk) -> None:
    peer = await desk.connected()
    desk.type("go\r")
    message = await peer.take()
    await peer.start("t1", message.id)
    await peer.say(wire.DeltaFrame(turn="t1", text="The first attempt"))
    await desk.screen.shows("The first attempt")
    await peer.close()
    again = await desk.connected()
    await desk.screen.hides("The first attempt")
    await again.answer("t1", message.id, "The second attempt.")
    await desk.screen.shows("The second attempt.")
    await desk.screen.hides("Ctrl-C stops")
    assert desk.screen.text.count("attempt") == 1


async def test_takes_up_a_reply_in_progress(desk: Desk) -> None:
    running = wire.RunningFrame(turn="t1", answers=("m1",), text="Half of a")
    peer = await desk.connected(running=running)
    await peer.event(events.User(content="the question", id="m1"))
    await desk.screen.shows("Half of a")
    await peer.say(wire.DeltaFrame(turn="t1", text=" reply"))
    await desk.screen.shows("Half of a reply")
    await peer.finish("t1", "m1", "Half of a reply.")
    await desk.screen.shows("the question\n\nHalf of a reply.\n\n›")


async def test_a_message_typed_while_away_is_sent_once(desk: Desk, gateway: SocketGateway) -> None:
    await desk.connected()
    await desk.screen.shows("›")
    await gateway.stop()
    await desk.screen.shows("reconnecting…")
    desk.type("while away\r")
    await desk.screen.shows("waiting: while away")
    await desk.screen.shows("(1 to be sent)")
    await gateway.start()
    peer = await desk.connected()
    message = await peer.take()
    assert message.text == "while away"
    await desk.screen.hides("reconnecting…")
    await peer.answer("t1", message.id, "Welcome back.")
    await desk.screen.shows("› while away\n\nWelcome back.")
    desk.type(CTRL_D)
    assert await desk.leaves() == 0
    await peer.hears_nothing_more()


async def test_shows_what_others_say_in_the_session(desk: Desk) -> None:
    peer = await desk.connected()
    await desk.screen.shows("›")
    await peer.start("t0", "elsewhere")
    await peer.event(events.User(content="from \x1b[31mthe page", id="m1"))
    await peer.answer("t1", "m1", "A reply to the page.")
    await desk.screen.shows("you (elsewhere) › from [31mthe page\n\nA reply to the page.")


async def test_tools_take_one_line(desk: Desk) -> None:
    peer = await desk.connected()
    desk.type("go\r")
    message = await peer.take()
    await peer.start("t1", message.id)
    await peer.say(wire.ToolFrame(turn="t1", call_id="c1", name="clock", state="started"))
    await desk.screen.shows("⚙ clock…")
    for call_id, name, ok in (("c1", "clock", True), ("c2", "weather", False)):
        await peer.event(events.ToolCall(name=name, call_id=call_id, turn="t1"))
        await peer.event(events.ToolResult(name=name, call_id=call_id, ok=ok, turn="t1"))
    await peer.finish("t1", message.id, "Done.")
    await desk.screen.shows("› go\n\n⚙ clock · weather (failed)\n\nDone.")


async def test_control_characters_never_reach_the_terminal(desk: Desk) -> None:
    # The screen fails on any escape sequence but the editor's own.
    evil = "a\x1b]0;title\x07b\x9b31mc\x00\x08\x7f\ud800\u202ed"
    peer = await desk.connected(agent=evil, model=evil, turns=1)
    await peer.event(events.User(content=evil, id="x"))
    await peer.say(wire.Notice(text=evil), wire.Error(code="not_found", message=evil))
    for finish in ("stop", "cut"):
        desk.type("go\r")
        message = await peer.take()
        await peer.start("t1", message.id)
        tool = wire.ToolFrame(turn="t1", call_id=evil, name=evil, state="started")
        asks = wire.ApprovalFrame(turn="t1", call_id="a", name=evil, args={evil: evil}, expires="")
        await peer.say(
            tool, asks, wire.DeltaFrame(turn="t1", text=f"{evil} [{evil}](http://{evil}) ```{evil}")
        )
        await desk.screen.shows("may it run?")
        await peer.finish("t1", message.id, f"{evil} end of {finish}\n\n```{evil}\n{evil}\n```", finish)
        await desk.screen.shows(f"end of {finish}")


async def test_tells_how_a_turn_ended(desk: Desk) -> None:
    peer = await desk.connected()
    marks: dict[events.Finish, str] = {"stopped": "— stopped —", "cut": "— cut off", "length": "length limit"}
    for finish, mark in marks.items():
        desk.type("go\r")
        await peer.answer("t1", (await peer.take()).id, "So far", finish)
        await desk.screen.shows(mark)
    desk.type("go\r")
    message = await peer.take()
    failed = events.System(name="turn_failed", turn="t2", answers=(message.id,), content="The model is away.")
    await peer.event(failed)
    await desk.screen.shows("✗ The model is away.")
    desk.type("again\r")
    refused = await peer.hear(wire.Message)
    await peer.say(wire.Error(code="queue_full", message="Too many wait.", id=refused.id))
    await desk.screen.shows("✗ Too many wait.")


async def test_approves_and_denies(desk: Desk) -> None:
    peer = await desk.connected()
    desk.type("/yes\r")
    await desk.screen.shows("Nothing is being asked.")
    for name, word, allow in (("delete", "/yes\r", True), ("send", "/no\r", False)):
        args = {"path": "/tmp/x"}
        await peer.say(wire.ApprovalFrame(turn="t1", call_id=name, name=name, args=args, expires=""))
        await desk.screen.shows(f'? {name} {{"path": "/tmp/x"}} — may it run? /yes or /no')
        desk.type(word)
        assert await peer.hear(wire.Approve) == wire.Approve(call_id=name, allow=allow)
    await desk.screen.shows("delete may run.")
    await desk.screen.shows("send may not run.")


async def test_ctrl_c_stops_clears_and_tells_the_way_out(desk: Desk) -> None:
    peer = await desk.connected()
    desk.type("half a line")
    await desk.screen.shows("half a line")
    desk.type(CTRL_C)
    await desk.screen.hides("half a line")
    assert "leaves." not in desk.screen.text
    desk.type(CTRL_C)
    await desk.screen.shows("Ctrl-D or /exit leaves.")
    desk.type("go\r")
    message = await peer.take()
    await peer.start("t1", message.id)
    await desk.screen.shows("Ctrl-C stops")
    desk.type("kept" + CTRL_C)
    await peer.hear(wire.Stop)
    await desk.screen.shows("stopping…")
    await peer.finish("t1", message.id, "", "stopped")
    await desk.screen.shows("— stopped —\n\n› kept")


@pytest.mark.parametrize("last", ["/exit\r", CTRL_D])
async def test_leaves(desk: Desk, last: str) -> None:
    peer = await desk.connected()
    await desk.screen.shows("›")
    desk.type(last)
    assert await desk.leaves() == 0
    await peer.hears_nothing_more()
    assert not desk.screen.text.endswith("›")


async def test_tells_what_was_not_sent(desk: Desk, gateway: SocketGateway) -> None:
    await desk.connected()
    await desk.screen.shows("›")
    await gateway.stop()
    await desk.screen.shows("reconnecting…")
    desk.type("never sent\r" + CTRL_D)
    assert await desk.leaves() == 0
    await desk.screen.shows("Not sent: never sent")


async def test_the_last_words_are_sent(desk: Desk) -> None:
    peer = await desk.connected()
    await desk.screen.shows("›")
    desk.type("last\rwords\r" + CTRL_D)
    for text in ("last", "words"):
        message = await peer.hear(wire.Message)
        assert message.text == text
        await peer.say(wire.Ack(id=message.id, cursor="ack", queued=0))
    assert await desk.leaves() == 0
    await desk.screen.shows("› last")
    assert "Not sent" not in desk.screen.text
    assert "No word" not in desk.screen.text


async def test_tells_what_may_have_arrived(desk: Desk) -> None:
    peer = await desk.connected()
    await desk.screen.shows("›")
    desk.type("first\rsecond\r" + CTRL_D)
    assert (await peer.hear(wire.Message)).text == "first"
    assert await desk.leaves() == 0
    await peer.hears_nothing_more()
    await desk.screen.shows("No word yet whether this arrived: first\nNot sent: second")


async def test_several_lines_and_pasted_ones(desk: Desk) -> None:
    peer = await desk.connected()
    desk.type("one" + ALT_ENTER + "two\nthree\r")
    assert (await peer.take()).text == "one\ntwo\nthree"
    desk.type("\x1b[200~four\r\nfive\x1b[201~\r")
    assert (await peer.take()).text == "four\nfive"


async def test_remembers_what_was_said(desk: Desk, gateway: SocketGateway, tmp_path: Path) -> None:
    peer = await desk.connected()
    desk.type("first\r")
    await peer.take()
    desk.type(CTRL_D)
    await desk.leaves()
    history = tmp_path / "state" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    async with sitting(gateway, tmp_path) as again:
        peer = await again.connected()
        await again.screen.shows("›")
        again.type(UP)
        await again.screen.shows("› first")
        again.type(" more\r")
        assert (await peer.take()).text == "first more"


async def test_completes_commands(desk: Desk) -> None:
    peer = await desk.connected()
    desk.type("/st" + TAB)
    await desk.screen.shows("/status")
    desk.type(TAB + "\r")
    assert (await peer.hear(wire.Message)).text in ("/status", "/stop")


async def test_help_is_the_gateways_and_its_own(desk: Desk) -> None:
    peer = await desk.connected()
    desk.type("/help\r")
    message = await peer.hear(wire.Message)
    await peer.say(wire.Notice(text="/new – begin anew", id=message.id))
    await desk.screen.shows("/exit    leave")
    assert "› /help\n\n/new – begin anew\nIn this terminal:" in desk.screen.text


async def test_tells_the_limit_before_sending(desk: Desk) -> None:
    peer = await desk.connected()
    pasted = "\x1b[200~" + "x" * (wire.MAX_TEXT + 1) + "\x1b[201~\r"
    await asyncio.to_thread(desk.type, pasted)  # more than a pipe holds
    await desk.screen.shows("at most 64 KiB")
    desk.type(CTRL_C + "short\r")
    assert (await peer.take()).text == "short"


async def test_draws_nothing_where_no_daemon_runs(tmp_path: Path) -> None:
    async with sitting(SocketGateway(tmp_path / "none.sock"), tmp_path) as desk:
        with pytest.raises(CannotChat, match="`lunar run`"):
            await desk.leaves()
        assert desk.screen.text == ""


async def test_ends_where_a_reconnect_is_refused(desk: Desk, gateway: SocketGateway) -> None:
    peer = await desk.connected()
    await desk.screen.shows("›")
    await peer.close()
    again = await gateway.accept()
    await again.hear(wire.Hello)
    await again.say(wire.Error(code="unauthorized", message="Who are you?"))
    with pytest.raises(CannotChat, match="Who are you"):
        await desk.leaves()
