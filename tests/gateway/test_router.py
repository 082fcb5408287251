"""Which lane a message goes to, and when lanes come and go."""

import asyncio
import errno
from pathlib import Path

import pytest

from channels.base import Answer, InboundMessage, Receipt
from channels.errors import Refused
from session import events, transcript
from session.errors import BadCursor
from session.events import Assistant, User
from session.ids import AgentId, MessageId, SessionId
from session.store import Store
from tests.fakes.garbage import garbage
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Tools, Watcher, asked, cli
from tests.session.disk import Disk

LOCAL = SessionId("agent:main:cli:local")


async def left_open(folder: Path, *names: str) -> None:
    """What a crash leaves: in each session one message without an answer."""
    store = Store(folder)
    store.start()
    for name in names:
        message = events.stamped(User(content=f"Hello from {name}", id="m1"))
        await store.append(SessionId(f"agent:{name}"), [message])
    await store.close()


async def test_a_message_without_a_connection(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        message = InboundMessage(cli(), MessageId("m1"), "Hello")
        assert isinstance(await gateway.router.submit(message), Receipt)
        lane = await gateway.lane()
        assert lane.held == 0
        await Watcher(lane).done()
        command = InboundMessage(cli(), MessageId("m2"), "/help")
        assert isinstance(await gateway.router.submit(command), Answer)
        unknown = InboundMessage(cli(), MessageId("m3"), "Hello", AgentId("nobody"))
        with pytest.raises(Refused) as refused:
            await gateway.router.submit(unknown)
        assert refused.value.code == "not_found"


@pytest.mark.parametrize(("text", "code"), [(" \n ", "bad_frame"), ("ü" * 40_000, "text_too_large")])
async def test_a_text_that_is_no_message(folder: Path, text: str, code: str) -> None:
    async with Gateway(folder) as gateway:
        with pytest.raises(Refused) as refused:
            await gateway.router.submit(InboundMessage(cli(), MessageId("m1"), text))
        assert refused.value.code == code
        assert not (folder / "sessions" / "agent-main-cli-local.jsonl").exists()


async def test_what_was_left_open_is_answered_at_the_next_start(folder: Path) -> None:
    await left_open(folder, "main:cli:one", "main:cli:two", "gone:cli:one")
    async with Gateway(folder) as gateway:
        assert await gateway.router.resume() == 2
        await gateway.quiet()
        assert sorted(asked(ask) for ask in gateway.runner.asked) == [
            "Hello from main:cli:one",
            "Hello from main:cli:two",
        ]
    # An agent that is no longer configured: its session waits until it is.
    assert b"+agent-gone-cli-one.jsonl" in (folder / "open.log").read_bytes()


async def test_resuming_leaves_no_second_lane_to_a_client_that_came_at_once(folder: Path) -> None:
    """`open.log` names a session that has nothing open, and somebody enters it while it is looked at."""
    await left_open(folder, "main:cli:local")
    store = Store(folder)
    store.start()
    closing = Assistant(content="An answer", turn="t1", answers=("m1",), finish="stop")
    await store.append(LOCAL, [events.stamped(closing)])
    await store.close()
    async with Gateway(folder) as gateway:
        resuming = asyncio.create_task(gateway.router.resume())
        entering = asyncio.create_task(gateway.router.session(cli()))
        assert await resuming == 0
        seat = await entering
        assert [lane.held for lane in gateway.router.lanes] == [1]
        assert await gateway.lane() in gateway.router.lanes
        other = await gateway.router.session(cli())
        assert [lane.held for lane in gateway.router.lanes] == [2]
        seat.close()
        seat.close()
        other.close()
        assert [lane.held for lane in gateway.router.lanes] == [0]


async def test_lanes_that_nobody_uses_are_let_go(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        held = await gateway.router.session(cli("held"))
        idle = await gateway.lane("idle")
        busy = await gateway.lane("busy")
        watcher = Watcher(busy)
        await busy.submit("m1", "Hello")
        await gateway.router.sweep()
        assert len(gateway.router.lanes) == 3
        gateway.now = 61.0
        await gateway.router.sweep()
        assert {lane.session for lane in gateway.router.lanes} == {held.id, busy.session}
        assert await gateway.lane("idle") is not idle
        gate.open.set()
        await watcher.done()
        await gateway.quiet()
        held.close()
        gateway.now = 200.0
        await gateway.router.sweep()
        assert not gateway.router.lanes
    assert b"\n-agent-main-cli-busy.jsonl " in (folder / "open.log").read_bytes()


async def test_who_comes_while_a_lane_is_let_go_is_not_followed_by_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Gateway(folder) as gateway:
        lane = await gateway.lane("idle")
        listens: list[bool] = []

        async def settle(session: SessionId) -> None:
            listens.append(lane.journal.on_lost == lane.lose)

        monkeypatch.setattr(gateway.router.store, "settle", settle)
        gateway.now = 61.0
        await gateway.router.sweep()
        assert listens == [False]
        monkeypatch.undo()


async def test_what_is_over_goes_at_once_and_waits_for_no_collector(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(Tools("c1"))) as gateway:
        with garbage() as left:
            client = await gateway.client()
            await client.send("message", id="m1", text="Delete it")
            asked = await client.until("approval")
            await client.send("approve", call_id=asked["call_id"], allow=True)
            await client.closed("m1")
            await client.send("message", id="m2", text="And that")
            await client.until("approval")
            await client.send("stop")
            await client.closed("m2")
            await client.command("/compact")
            await gateway.quiet()
            await client.close()
            while gateway.router.lanes[0].held:  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0.001)
            gateway.now = 61.0
            await gateway.router.sweep()
            assert not gateway.router.lanes
        # asyncio's streams hold one another, and the last of ours with them.
        assert left.of("gateway", "channels", "session") <= {"channels.cli.server._Lines"}


async def test_draining_while_sessions_are_opened(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seats = [await gateway.router.session(cli(f"s{number}")) for number in range(20)]
        for seat in seats:
            await seat.submit("m1", "Hello")
            seat.close()
        draining = asyncio.create_task(gateway.router.drain(5))
        late = [await gateway.router.session(cli(f"late{number}")) for number in range(20)]
        await draining
        for seat in late:
            with pytest.raises(Refused) as refused:
                await seat.submit("m1", "Too late")
            assert refused.value.code == "shutting_down"


async def test_asking_again(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await gateway.router.session(cli())
        watcher = Watcher(await gateway.lane())
        await seat.submit("m1", "//not a command")
        await watcher.done()
        assert isinstance(await seat.retry("m2", "m1"), Receipt)
        await watcher.done(2)
        assert [asked(ask) for ask in gateway.runner.asked] == ["/not a command"] * 2
        await seat.submit("m3", "/new")
        for of in ("nothing", "m3"):
            with pytest.raises(Refused) as refused:
                await seat.retry("m4", of)
            assert refused.value.code == "not_found"


async def test_cursors_of_other_sessions_are_told_apart(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        one, two = await gateway.router.session(cli("one")), await gateway.router.session(cli("two"))
        receipt = await one.submit("m1", "Hello")
        assert isinstance(receipt, Receipt)
        with pytest.raises(BadCursor):
            await two.after(receipt.cursor, 10, None)
        await two.submit("m1", "Hello")
        with pytest.raises(BadCursor):
            await two.after(receipt.cursor, 10, None)
        with pytest.raises(BadCursor):
            await two.before(receipt.cursor, 10)


async def test_a_transcript_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await left_open(folder, "main:cli:local")
    disk = Disk()
    monkeypatch.setattr(transcript, "os", disk)
    async with Gateway(folder) as gateway:
        disk.fail("pread", errno.EIO)
        with pytest.raises(Refused) as refused:
            await gateway.router.session(cli())
        assert refused.value.code == "storage_unavailable"
        seat = await gateway.router.session(cli())
        await Watcher(await gateway.lane()).done()
        disk.fail("pread", errno.EIO, times=3)
        for reading in (seat.before(None, 10), seat.after(None, 10, None), seat.retry("m2", "m1")):
            with pytest.raises(Refused) as refused:
                await reading
            assert refused.value.code == "storage_unavailable"
        assert len(await seat.before(None, 10)) == 4


async def test_what_cannot_be_read_at_the_start_is_gone_on_with_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    monkeypatch.setattr(transcript, "os", disk)
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        await (await gateway.lane()).submit("m1", "Hello")
        await gate.entered.wait()
    async with Gateway(folder) as gateway:
        disk.fail("open", errno.EMFILE)
        assert await gateway.router.resume() == 0
        await gateway.router.sweep()
        (lane,) = gateway.router.lanes
        await Watcher(lane).done()
        assert asked(gateway.runner.asked[-1]) == "Hello"


async def test_deleting(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await gateway.router.session(cli())
        await seat.submit("m1", "Hello")
        assert await gateway.router.delete(cli())
        assert not await gateway.router.delete(cli())
        assert await seat.before(None, 10) == []


async def test_a_probe_leaves_neither_a_lane_nor_a_file(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        await gateway.router.probe()
        assert not gateway.router.lanes
        assert not list((folder / "sessions").iterdir())


async def test_a_disk_that_cannot_be_read_does_not_break_the_probe(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Gateway(folder) as gateway:

        async def unreadable(*_: object) -> list[object]:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(gateway.store, "recent", unreadable)
        await gateway.router.probe()
