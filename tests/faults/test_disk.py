"""The disk under a living daemon: full, read-only, not ours any more, deleted. Judged by the ledger.

What is acknowledged is on the disk, and what cannot be is refused until the disk is back; nobody has to
restart anything.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.faults import invariants
from tests.faults.figures import TORTURE, figure
from tests.faults.mounts import UNPRIVILEGED, Mounts
from tests.faults.people import WORD, Chatter, Client
from tests.faults.world import TOKEN, World

ROUNDS = 10 if TORTURE else 1
WITHIN = 5.0  # seconds in which it is back by itself, as faults.md promises
PAD = "x" * 4096  # with it, a message fits into no page that was begun: a full disk must refuse it
TELEGRAM_PAD = "x" * 3900  # as long as Telegram allows: where the page has just been begun, it fits
CANNOT_CREATE = 73

Step = Callable[[], Awaitable[None]]


class Disk:
    """A daemon whose data directory is on a disk of 1 MiB, and people on three channels."""

    def __init__(self, world: World, mounts: Mounts) -> None:
        self.world = world
        self.mounts = mounts
        self.disk = world.folder / "disk"
        self.data = self.disk / "data"
        self.seen = mounts.seen(self.disk)
        self._people = 0
        daemon = world.daemon
        daemon.within = [*mounts.within, *UNPRIVILEGED]
        daemon.data_dir = mounts.seen(self.data)
        daemon.socket = daemon.data_dir / "lunar.sock"

    async def start(self) -> None:
        await self.world.daemon.start(LUNAR_DATA_DIR=str(self.data))

    def newcomers(self) -> list[Client | Chatter]:
        """Three people of whom the daemon has no file yet."""
        self._people += 1
        number = self._people
        term = self.world.terminal(f"term{number}")
        return [term, self.world.browser(f"web{number}"), self.world.chatter(f"tele{number}")]

    def say(self, *people: Client | Chatter, text: str = "hello") -> None:
        for someone in people:
            someone.say(f"{text} {someone.name}w{len(someone.said)}")

    def missing(self, *people: Client | Chatter) -> list[str]:
        """What they still wait for."""
        owed = []
        for someone in people or tuple(self.world.everybody):
            if isinstance(someone, Client):
                owed += someone.owed()
            else:
                shown = someone.shown()
                owed += [w for said in someone.said for w in WORD.findall(said.text) if w not in shown]
        return owed

    async def content(self, *people: Client | Chatter, seconds: float = 60.0) -> None:
        """Wait until everybody (or these) has what they are owed."""
        await self.world.until(lambda: not self.missing(*people), "everybody's answers", seconds)

    async def health(self, status: int) -> str:
        """Wait for this answer of /healthz; what it says of the store."""
        async with asyncio.timeout(20):
            while True:
                found, body = await self.world.daemon.get("/healthz")
                if found == status:
                    return str(body["why"].get("store", ""))
                await asyncio.sleep(0.05)

    async def trouble(self, name: str, break_it: Step, mend_it: Step, *people: Client | Chatter) -> None:
        """Break the disk; what these people say then is not taken, until it is mended."""
        await break_it()
        for someone in people:
            self.say(someone, text=PAD if isinstance(someone, Client) else TELEGRAM_PAD)
        why = await self.health(503)
        await asyncio.sleep(1.0 if TORTURE else 0.0)  # long enough for every one of them to be refused
        assert why
        for someone in people:
            if isinstance(someone, Client):
                assert someone.said[-1].id not in someone.acknowledged, f"{name}: acknowledged all the same"
        await mend_it()
        answered, healthy = await asyncio.gather(_timed(self.content(*people)), _timed(self.health(200)))
        figure("disk", fault=name, healthy=healthy, everybody_answered=answered, said=why)
        assert not TORTURE or healthy <= WITHIN, f"{name}: it took {healthy} s to be back"

    # -- the faults ------------------------------------------------------------------------------

    async def fill(self) -> None:
        with (self.seen / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    async def make_room(self) -> None:
        (self.seen / "filler").unlink()

    async def cover(self) -> None:
        """What is opened from now on is on a file system that is mounted read-only."""
        await self.mounts.run("mount", "--bind", self.disk, self.disk)
        await self.mounts.run("mount", "-o", "remount,bind,ro", self.disk)

    async def uncover(self) -> None:
        await self.mounts.run("umount", self.disk)

    async def lock_out(self) -> None:
        await self.mounts.run("chmod", "0500", self.data / "sessions")

    async def let_in(self) -> None:
        await self.mounts.run("chmod", "0700", self.data / "sessions")


async def _timed(work: Awaitable[object]) -> float:
    began = time.monotonic()
    await work
    return round(time.monotonic() - began, 2)


@asynccontextmanager
async def on_a_disk(folder: Path) -> AsyncIterator[Disk]:
    """A daemon that runs; in the end it is stopped, and what it stored is checked."""
    async with Mounts() as mounts, OpenAIServer() as openai, TelegramServer(TOKEN) as telegram:
        world = World(folder / "w", openai, telegram, random.Random(4), open_to_all=True)
        disk = Disk(world, mounts)
        disk.disk.mkdir()
        await mounts.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk.disk)
        try:
            await disk.start()
            yield disk
            assert await world.daemon.stop() == 0
            invariants.check(world)
        except AssertionError as error:
            told = f"{disk.missing()[:10]} {world.daemon.log[-10:]} {world.daemon.noise[-10:]}"
            raise AssertionError(f"{error} {told}") from error
        finally:
            await world.daemon.close()
    assert not [entry for entry in world.daemon.log if entry["event"] == "a connection broke"]


async def test_what_cannot_be_stored_is_refused_until_it_can(folder: Path) -> None:
    async with on_a_disk(folder) as disk:
        known, later, last = disk.newcomers(), disk.newcomers(), disk.newcomers()
        async with disk.world.living():
            disk.say(*known)
            await disk.content()
            for _ in range(ROUNDS):
                disk.say(known[0], text="slow")  # a turn that has to wait for the disk, too
                await disk.trouble("disk full", disk.fill, disk.make_room, *known)
            await disk.trouble("mounted read-only", disk.cover, disk.uncover, *later)
            await disk.trouble("permission lost", disk.lock_out, disk.let_in, *last)


async def test_a_data_directory_that_is_deleted_is_made_anew_by_a_restart(folder: Path) -> None:
    async with on_a_disk(folder) as disk:
        daemon = disk.world.daemon
        early = await daemon.client("early")
        await early.ask("Are you there?")
        browser = disk.newcomers()[1]
        async with disk.world.living():
            await disk.mounts.run("rm", "-rf", disk.data)
            disk.say(browser)
            assert await disk.health(503)
            assert disk.missing() == [browser.said[0].id]
            began = time.monotonic()
            assert await daemon.stop() == 0
            figure("stop", connected="no data directory", seconds=round(time.monotonic() - began, 2))
            await disk.mounts.run("mount", "-o", "remount,ro", disk.disk)
            await daemon.launch(LUNAR_DATA_DIR=str(disk.data))
            assert await daemon.exit() == CANNOT_CREATE
            assert "Read-only file system. Choose another data_dir." in " ".join(daemon.noise)
            await disk.mounts.run("mount", "-o", "remount,rw", disk.disk)
            await disk.start()
            await disk.content()
