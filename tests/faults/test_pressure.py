"""More than anybody should ask of it: crowds, floods, no descriptors, a clock that jumps."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import Behaviour, OpenAIServer, Say, last_user_text
from tests.fakes.processes import until
from tests.fakes.telegram_server import TelegramServer
from tests.faults import invariants
from tests.faults.crowd import CONTINUATION, TEXT, Crowd, frame, hello, resident
from tests.faults.figures import TORTURE, figure
from tests.faults.listener import Listener
from tests.faults.people import WORD, Chatter, Client
from tests.faults.world import TOKEN, World, reply

IDLE, TALKERS, TEXTS = (10_000, 200, 3) if TORTURE else (200, 12, 2)
READERS = 100 if TORTURE else 10
DAEMONS = 20 if TORTURE else 3
SESSIONS = 100_000 if TORTURE else 1_000
STALL = 15.0 if TORTURE else 0.5
BOMB = (1 << 30) if TORTURE else (4 << 20)  # characters that compress to a thousandth
GROWTH = 5.0  # MiB that what nobody may send may cost
HELD = 75  # the exit code of a daemon that finds another
YEAR = 365.25 * 86_400
LOUD = "This is one of very many sentences. " * 8_000  # some 300 KB


@asynccontextmanager
async def pressed(folder: Path, module: str = "tests.faults.crashing") -> AsyncIterator[World]:
    """A daemon, not started; in the end it is stopped, and what everybody saw and said is checked."""
    async with OpenAIServer() as openai, TelegramServer(TOKEN) as telegram:
        world = World(folder / "w", openai, telegram, random.Random(6), open_to_all=True)
        world.daemon._module = module
        openai.reply = _reply
        try:
            yield world
            if world.daemon.process is not None:
                await _stop(world, "nobody")
            invariants.check(world)
        except AssertionError as error:
            told = f"{_missing(world)[:10]} {world.daemon.log[-6:]} {world.daemon.noise[-10:]}"
            raise AssertionError(f"{error} {told}") from error
        finally:
            await world.daemon.close()
    assert not [entry for entry in world.daemon.log if entry["level"] in ("error", "critical")]


async def _stop(world: World, connected: object) -> None:
    began = time.monotonic()
    world.daemon.signal(signal.SIGTERM)
    assert await _ended(world.daemon) == 0
    figure("stop", connected=connected, seconds=round(time.monotonic() - began, 2))


async def _ended(daemon: Daemon) -> int:
    """The exit code, waited for longer than one that is alone would need."""
    assert daemon.process is not None
    async with asyncio.timeout(180):
        await daemon.process.wait()
    return await daemon.exit()


def _reply(body: dict[str, Any]) -> Behaviour:
    asked = last_user_text(body)
    words = " ".join(WORD.findall(asked))
    if "loud" in asked:
        return Say(LOUD + words, size=20_000)
    if "a million" in asked:
        return Say("x" * 1_000_000 + " " + words, size=20_000)
    return reply(body)


def _say(someone: Client | Chatter, text: str = "hello") -> None:
    someone.say(f"{text} {someone.name}w{len(someone.said)}")


def _missing(world: World) -> list[str]:
    owed = [id for client in world.clients for id in client.owed()]
    for chatter in world.chatters:
        shown = chatter.shown()
        owed += [w for said in chatter.said for w in WORD.findall(said.text) if w not in shown]
    return owed


async def _content(world: World, seconds: float = 120.0) -> None:
    await world.until(lambda: not _missing(world), "everybody's answers", seconds)


def _established(port: int) -> int:
    """How many connections a daemon holds open on its port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def _descriptors(world: World) -> int:
    assert world.daemon.process is not None
    return len(list(Path(f"/proc/{world.daemon.process.pid}/fd").iterdir()))


def _memory(world: World) -> float:
    assert world.daemon.process is not None
    return resident(world.daemon.process.pid)


async def test_a_crowd_that_is_idle_while_others_talk(folder: Path) -> None:
    idle = min(IDLE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2_000)
    async with pressed(folder) as world:
        talkers: list[Client | Chatter] = [world.terminal(f"term{n}") for n in range(TALKERS // 2)]
        talkers += [world.browser(f"web{n}") for n in range(TALKERS // 2)]
        await world.daemon.start()
        before, began = _memory(world), time.monotonic()
        async with Crowd(world.daemon.port) as crowd, world.living():
            await crowd.come(idle)
            came, grown = time.monotonic() - began, _memory(world) - before
            for someone in talkers:
                for text in ("hello", "please stamp", "slow")[:TEXTS]:
                    _say(someone, text)
            began = time.monotonic()
            await _content(world)
            seconds = time.monotonic() - began
            assert crowd.connected == idle, "idle clients were lost"
            await _stop(world, idle)
        figure(
            "idle WebSockets",
            count=idle,
            came_in=round(came, 1),
            kib_each=round(grown * 1024 / idle, 1),
            talkers=TALKERS,
            messages=TEXTS * TALKERS,
            answered_in=round(seconds, 1),
        )


async def test_readers_that_do_not_read_hold_nobody_up(folder: Path) -> None:
    """Some never read; one is a process that is stopped, and then continues: it gets all that it missed."""
    async with pressed(folder) as world:
        term, web = talkers = world.terminal("loud0"), world.browser("loud1")
        await world.daemon.start()

        async def join() -> asyncio.StreamWriter:
            reader, writer = await asyncio.open_unix_connection(str(world.daemon.socket), limit=1 << 12)
            writer.write(b'{"type":"hello","protocol":1,"session":"loud0"}\n')
            assert b"welcome" in await reader.readline()
            return writer

        async def talk() -> None:
            for talker in talkers:
                _say(talker, "loud")
            await _content(world)

        async with world.living(), Listener(world.daemon.socket, "loud0") as listener:
            await talk()
            await until(lambda: listener.ids == ["loud0-0"])
            listener.stop()
            before = _memory(world)
            async with _lurking(READERS // 2, join), Crowd(world.daemon.port) as crowd:
                await crowd.come(READERS // 2, hello(session=web._secret), reading=False)
                for _ in range(4):
                    await talk()
                await until(lambda: _established(world.daemon.port) == 1, 60)  # the talker
                grown = _memory(world) - before
                listener.go_on()
                await until(lambda: listener.ids == [f"loud0-{number}" for number in range(5)])
        assert term.resets + web.resets == 0
        figure("readers that never read", count=READERS, left=0, grown_mib=round(grown, 1))
        assert grown < 30 + 2 * READERS  # what waits for one is bounded by 1 MiB, and a batch is on its way


@asynccontextmanager
async def _lurking(count: int, connect: Callable[[], Awaitable[asyncio.StreamWriter]]) -> AsyncIterator[None]:
    """So many connections that read nothing, until the block ends."""
    writers = [await connect() for _ in range(count)]
    try:
        yield
    finally:
        for writer in writers:
            if not writer.is_closing():
                writer.transport.abort()


async def test_what_is_far_too_large_costs_nothing(folder: Path) -> None:
    async with pressed(folder) as world:
        people = [world.terminal("term0"), world.browser("web0")]
        await world.daemon.start()
        async with world.living():
            for someone in people:
                _say(someone, "a million")
            await _content(world)
            await _flood(world.daemon)  # the first one leaves what it needed to the allocator
            before = _memory(world)
            await _flood(world.daemon)
            grown = _memory(world) - before
            for someone in people:
                _say(someone)
            await _content(world)
        figure("far too large", frame_bytes=1 << 30, grown_mib=round(grown, 2))
        assert grown < GROWTH


async def _flood(daemon: Daemon) -> None:
    """A frame of 1 GB, one without an end, fragments for ever, a line of 1 GB, and much in little."""
    block = bytes(1 << 20)
    for first, more in (
        (frame(TEXT, b"", size=1 << 30), block),
        (frame(TEXT, b"", size=1 << 62), block),
        (frame(TEXT, block[:100_000], final=False), frame(CONTINUATION, block[:100_000], final=False)),
    ):
        async with Crowd(daemon.port) as crowd:
            await crowd.come(1)
            assert await _pour(crowd.clients[0].transport, first, more) < 32 << 20
    _, writer = await asyncio.open_unix_connection(str(daemon.socket))
    writer.write(b'{"type":"hello","protocol":1,"session":"huge"}\n')
    assert await _pour(writer.transport, b'{"type":"message","text":"', block) < 32 << 20
    web = await connect(f"ws://127.0.0.1:{daemon.port}/ws", proxy=None, compression="deflate")
    with pytest.raises(ConnectionClosed):  # noqa: PT012 - whichever of the two notices it
        await web.send("x" * BOMB)
        await web.recv()
    client = await daemon.client("large")
    await client.send("message", id="m1", text="x" * 100_000)
    assert (await client.until("error"))["code"] == "text_too_large"
    await client.send("message", id="m2", text="x" * 1_000_000)
    assert (await client.until("error"))["code"] == "frame_too_large"
    assert await client.end() == []


async def _pour(transport: asyncio.WriteTransport, first: bytes, more: bytes) -> int:
    """Write for as long as anybody takes it, up to 1 GB; how many bytes were taken."""
    poured = 0
    transport.write(first)
    while poured < 1 << 30 and not transport.is_closing():
        if transport.get_write_buffer_size() > 1 << 20:
            await asyncio.sleep(0.001)
            continue
        transport.write(more)
        poured += len(more)
        await asyncio.sleep(0)
    if not transport.is_closing():
        transport.abort()
    return poured


async def test_no_descriptor_is_left(folder: Path) -> None:
    """Those who are there go on; those who come later are let in when there is room, by itself."""
    async with pressed(folder) as world:
        people: list[Client | Chatter] = [
            world.terminal("term0"),
            world.browser("web0"),
            world.chatter("tele0"),
        ]
        world.daemon.within = ["prlimit", "--nofile=96:96"]
        await world.daemon.start()

        async def join() -> asyncio.StreamWriter:
            _, writer = await asyncio.open_connection("127.0.0.1", world.daemon.port)
            return writer

        async with world.living():
            for someone in people:
                _say(someone)
            await _content(world)
            async with _lurking(120, join):
                await until(lambda: _descriptors(world) > 90)
                for someone in people[:2]:  # a call of Telegram's may need a new connection
                    _say(someone)
                await _content(world)
            began = time.monotonic()
            newcomer = world.browser("web1")
            _say(newcomer)
            _say(people[2])
            life = asyncio.create_task(newcomer.live())
            await _content(world)
            life.cancel()
            await asyncio.wait({life})
            figure("descriptors exhausted", accepts_again_in=round(time.monotonic() - began, 2))


async def test_daemons_started_at_once_on_one_directory(folder: Path) -> None:
    daemons = [Daemon(folder / "w", env={"LUNAR_MODEL__NAME": "fake-1"}) for _ in range(DAEMONS)]
    (folder / "w").mkdir()
    try:
        await asyncio.gather(*(daemon.launch() for daemon in daemons))
        ended = {asyncio.create_task(_ended(daemon)): daemon for daemon in daemons}
        while len(ended) > 1:
            done, _ = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                loser = ended.pop(task)
                assert task.result() == HELD, loser.noise
                assert "Another gateway is running" in " ".join(loser.noise)
        ((waiting, winner),) = ended.items()
        waiting.cancel()
        await winner.logged("ready")
        assert winner.process is not None
        assert f"process {winner.process.pid}" in (winner.data_dir / "lock").read_text()
        client = await winner.client("work")
        assert await client.command("/status")
        assert await winner.stop() == 0
    finally:
        for daemon in daemons:
            await daemon.close()


async def test_a_clock_that_jumps_and_a_loop_that_stands_still(folder: Path) -> None:
    skew = folder / "skew"
    async with pressed(folder, "tests.faults.skewed") as world:
        people: list[Client | Chatter] = [
            world.terminal("term0"),
            world.browser("web0"),
            world.chatter("tele0"),
        ]
        await world.daemon.start(SKEW=str(skew), STALL=str(STALL))
        async with world.living():
            for seconds in (0.0, YEAR, -YEAR, *((-50 * YEAR, 10 * YEAR) if TORTURE else ())):
                skew.write_text(str(seconds))
                for someone in people:
                    _say(someone, "slow" if TORTURE else "hello")
                world.daemon.signal(signal.SIGUSR1)
                await _content(world)
                assert (await world.daemon.get("/healthz"))[0] == 200
        years = {event["ts"][:4] for event in world.daemon.events("agent:main:cli:term0")}
        assert len(years) == (5 if TORTURE else 3), years  # the jumps were real


async def test_very_many_sessions_on_disk(folder: Path) -> None:
    async with pressed(folder) as world:
        sessions = world.daemon.data_dir / "sessions"
        sessions.mkdir(parents=True)
        said = b"".join(
            b'{"role":"%b","content":"%b","ts":"2026-02-25T10:05:00.000Z"}\n' % (role, b"words " * 20)
            for role in (b"user", b"assistant")
        )
        for number in range(SESSIONS):
            (sessions / f"agent-main-cli-old{number}.jsonl").write_bytes(said)
        talker = world.terminal("term0")
        for hints in ("missing", "there") if TORTURE else ("missing",):
            began = time.monotonic()
            await world.daemon.start()
            ready = time.monotonic() - began
            async with world.living():
                _say(talker)
                await _content(world)
                answered = time.monotonic() - began
            figure(
                "sessions on disk",
                count=SESSIONS,
                open_log=hints,
                ready=round(ready, 2),
                answered=round(answered, 2),
                mib=round(_memory(world)),
            )
            await _stop(world, "nobody")
