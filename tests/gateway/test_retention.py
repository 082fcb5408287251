"""Which conversations are put away, and when."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from gateway.retention import Retention
from session import archive, ids
from session.ids import Peer, PeerId, Provider, SessionId
from tests.conftest import Daemons
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner
from tests.fakes.openai_server import OpenAIServer

OLD = 1_000_000_000.0
NOW = OLD + 90 * 86_400 + 1


def path(folder: Path, session: str = "work") -> Path:
    return folder / "sessions" / ids.file_name(f"agent:main:cli:{session}")


def packed(folder: Path, session: str = "work") -> Path:
    return archive.path_of(folder, path(folder, session).name)


def peer(session: str) -> Peer:
    return Peer(Provider("cli"), PeerId(session))


async def spoken(gateway: Gateway, session: str = "work", modified: float = OLD) -> None:
    """A conversation that nobody is in any more, and that was last changed at that time."""
    seat = await gateway.router.session(peer(session))
    await seat.submit("m1", "Hello")
    seat.close()
    await gateway.quiet()
    gateway.now += 61.0
    await gateway.router.sweep()
    os.utime(path(gateway.store.data_dir, session), (modified, modified))


def retention(gateway: Gateway, days: float | None = 90) -> Retention:
    after = None if days is None else timedelta(days=days)
    return Retention(gateway.router, after, clock=lambda: NOW)


async def test_what_is_old_is_archived_and_comes_back(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        await spoken(gateway, "work")
        await spoken(gateway, "new", modified=OLD + 2)
        keeping = retention(gateway)
        assert await keeping.round() == 1
        assert (path(folder).exists(), packed(folder).exists()) == (False, True)
        assert path(folder, "new").exists()
        assert await keeping.round() == 0
        client = await gateway.client("work")
        assert (await client.ask("And now?"))["content"] == "echo: And now?"
        history = gateway.runner.asked[-1].history
        assert [message.content for exchange in history for message in exchange.messages] == ["Hello"]
        assert not packed(folder).exists()
        assert await keeping.round() == 0  # it is new again, and somebody is in it


async def test_without_a_setting_nothing_is_archived(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        await spoken(gateway)
        keeping = retention(gateway, days=None)
        assert await keeping.round() == 0
        assert path(folder).exists()
        keeping.after = timedelta(days=1)  # as after a reload
        assert await keeping.round() == 1


async def test_nobody_is_thrown_out_and_nothing_open_is_put_away(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        gate.open.set()
        await spoken(gateway, "held")
        await spoken(gateway, "open")
        held = await gateway.router.session(peer("held"))
        gate.open.clear()
        seat = await gateway.router.session(peer("open"))
        await seat.submit("m2", "Hello")
        for session in ("held", "open"):
            os.utime(path(folder, session), (OLD, OLD))
        assert await retention(gateway).round() == 0
        held.close()
        seat.close()
        gate.open.set()
        await gateway.quiet()
        os.utime(path(folder, "open"), (OLD, OLD))
        assert await retention(gateway).round() == 0  # their lanes are still in memory
        gateway.now += 61.0
        await gateway.router.sweep()
        assert await retention(gateway).round() == 2


async def test_one_that_cannot_be_written_is_told_and_stays(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        await spoken(gateway)
        (folder / "archive").write_text("in the way")
        assert await retention(gateway).round() == 0
        assert path(folder).exists()


async def test_what_a_crash_left_is_tidied_and_what_differs_is_kept(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        for session in ("work", "other"):
            await spoken(gateway, session)
        keeping = retention(gateway)
        await keeping.round()
        archives = {session: packed(folder, session).read_bytes() for session in ("work", "other")}
        for session in archives:
            await gateway.store.end(SessionId(f"agent:main:cli:{session}"))
        packed(folder).write_bytes(archives["work"])
        packed(folder, "other").write_bytes(archives["work"])
        keeping.after = None
        assert await keeping.round() == 0
        assert not packed(folder).exists()
        assert packed(folder, "other").exists()


async def test_by_the_daemon(daemons: Daemons, openai: OpenAIServer) -> None:
    daemon = daemons(server=openai)
    async with daemon:
        await (await daemon.client("work")).ask("Hello")
    session = "agent:main:cli:work"
    before = daemon.raw(session)
    os.utime(daemon.path(session), (OLD, OLD))
    await daemon.start(LUNAR_RETENTION__ARCHIVE_AFTER="30d")
    await daemon.logged("sessions were archived", sessions=1)
    assert not daemon.path(session).exists()
    client = await daemon.client("work")
    assert (await client.ask("And now?"))["content"] == "echo: And now?"
    assert daemon.raw(session).startswith(before)
    assert [message["content"] for message in openai.requests[-1].body["messages"]][-3:] == [
        "Hello", "echo: Hello", "And now?"
    ]  # fmt: skip
