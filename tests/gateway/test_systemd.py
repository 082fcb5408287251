"""sd_notify and socket activation, without systemd: the test is the service manager."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from gateway import systemd
from gateway.errors import ConfigError
from gateway.systemd import Inherited, Notifier, inherited, watch
from tests.conftest import Daemons

TIMEOUT = 20.0


class Manager:
    """The socket that a service manager listens on."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)
        self.told: list[dict[str, str]] = []

    async def next(self) -> dict[str, str]:
        async with asyncio.timeout(TIMEOUT):
            data = await asyncio.get_running_loop().sock_recv(self.socket, 4096)
        self.told.append(dict(line.split("=", 1) for line in data.decode().splitlines()))
        return self.told[-1]

    async def until(self, name: str) -> dict[str, str]:
        """The next message that says this."""
        while name not in (message := await self.next()):
            continue
        return message


@pytest.fixture
async def manager(folder: Path) -> AsyncIterator[Manager]:
    manager = Manager(str(folder / "notify"))
    yield manager
    manager.socket.close()


# -- what we tell ----------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
async def test_every_message_is_in_the_form_of_sd_notify(folder: Path, abstract: bool) -> None:
    address = f"@{folder}/notify" if abstract else str(folder / "notify")
    manager = Manager(address)
    notifier = Notifier({"NOTIFY_SOCKET": address})
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready()
    notifier.reloading()
    notifier.status("cli: ready;\n\thttp: READY=1")
    notifier.status("cli: ready; http: READY=1")
    notifier.status("\ud800" + "x" * 5000)
    notifier.extend(1.5)
    notifier.alive()
    notifier.stopping()
    assert await manager.next() == {"READY": "1"}
    reloading = await manager.next()
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    # Once, and in one line: a second one could be taken for another assignment.
    assert await manager.next() == {"STATUS": "cli: ready; http: READY=1"}
    assert await manager.next() == {"STATUS": "?" + "x" * 999}
    assert await manager.next() == {"EXTEND_TIMEOUT_USEC": "1500000"}
    assert await manager.next() == {"WATCHDOG": "1"}
    assert await manager.next() == {"STOPPING": "1"}
    manager.socket.close()


def test_without_a_manager_nothing_is_said(folder: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(folder / "nobody"), "WATCHDOG_USEC": "1000000"}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.status("fine")
        notifier.alive()
    assert Notifier({"WATCHDOG_USEC": "1000000"}).watchdog is None


@pytest.mark.parametrize(("other", "seconds"), [(None, 3.0), (0, 3.0), (1, None)])
def test_the_watchdog_may_be_for_another_process(other: int | None, seconds: float | None) -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3000000"}
    if other is not None:
        environ["WATCHDOG_PID"] = str(os.getpid() + other)
    assert Notifier(environ).watchdog == seconds


# -- the watchdog ----------------------------------------------------------------------------------


async def test_the_watchdog_hears_only_of_probes_that_come_back(folder: Path, manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "60000"})
    turns = iter(["good", "hangs", "breaks", "good"])
    done = asyncio.Event()

    async def probe() -> None:
        match next(turns, None):
            case "hangs":
                await asyncio.Event().wait()
            case "breaks":
                raise RuntimeError("a defect")
            case None:
                done.set()
                await asyncio.Event().wait()

    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    with structlog.testing.capture_logs() as logs:
        watching = asyncio.create_task(watch(notifier, probe, sleep))
        async with asyncio.timeout(TIMEOUT):
            await done.wait()
        watching.cancel()
    assert [await manager.next() for _ in range(2)] == [{"WATCHDOG": "1"}] * 2
    with pytest.raises(BlockingIOError):
        manager.socket.recv(1)
    events = [entry["event"] for entry in logs]
    assert sum("hangs" in event for event in events) == 1
    assert sum("broke" in event for event in events) == 1
    assert max(pauses) <= 0.02  # a third of what systemd allows


async def test_without_a_watchdog_nobody_probes() -> None:
    async def probe() -> None:
        raise AssertionError("asked")

    await watch(Notifier({}), probe)


# -- sockets that are passed -----------------------------------------------------------------------


def passed(monkeypatch: pytest.MonkeyPatch, *sockets: socket.socket) -> dict[str, str]:
    """Put the sockets where the first passed descriptor and those behind it would be."""
    first = 400
    for number, given in enumerate(sockets):
        os.dup2(given.fileno(), first + number, inheritable=True)
        given.close()
    monkeypatch.setattr(systemd, "_FIRST_FD", first)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": "x"}


def unix(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def test_sockets_are_known_by_what_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    http = socket.create_server(("127.0.0.1", 0))
    port = http.getsockname()[1]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    environ = passed(monkeypatch, http, datagrams, unix(folder / "one"), unix(folder / "two"))
    found = inherited(environ)
    assert not environ
    assert found.cli is not None
    assert found.cli.getsockname() == str(folder / "one")
    assert [listener.getsockname() for listener in found.http] == [("127.0.0.1", port)]
    for listener in (found.cli, *found.http):
        assert not listener.get_inheritable()
        assert not listener.getblocking()
        listener.close()


def test_sockets_of_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "2"}
    assert inherited(environ) == Inherited()
    assert inherited({}) == Inherited()


def test_the_most_exposed_address_counts() -> None:
    assert Inherited().host is None
    with socket.create_server(("127.0.0.1", 0)) as near, socket.create_server(("", 0)) as far:
        assert Inherited(http=(near,)).host == "127.0.0.1"
        assert Inherited(http=(near, far)).host == "0.0.0.0"


def test_a_port_for_everybody_needs_a_token(tmp_path: Path) -> None:
    from gateway.config import Config
    from gateway.daemon import Daemon

    with socket.create_server(("", 0)) as far, pytest.raises(ConfigError, match="set a token"):
        Daemon(Config(data_dir=tmp_path), inherited=Inherited(http=(far,)))


# -- the daemon ------------------------------------------------------------------------------------


async def test_ready_means_that_people_are_served(daemons: Daemons, manager: Manager, folder: Path) -> None:
    daemon = daemons(NOTIFY_SOCKET=str(folder / "notify"))
    await daemon.launch()
    assert await manager.until("READY")
    client = await daemon.client()
    await client.ask("hello")
    started = await daemon.logged("ready")
    daemon.port = int(started["http"].rsplit(":", 1)[1].strip("/"))
    assert (await daemon.get("/healthz"))[0] == 200

    status = (await manager.until("STATUS"))["STATUS"]
    assert "cli: ready" in status
    assert "http: ready" in status

    second = daemons(NOTIFY_SOCKET=str(folder / "notify"), LUNAR_DATA_DIR=str(daemon.data_dir))
    await second.launch()
    assert await second.exit() == os.EX_TEMPFAIL
    assert await daemon.stop() == 0
    while "shutting down" not in (await manager.until("STATUS"))["STATUS"]:
        continue
    assert sum("READY" in message for message in manager.told) == 1


async def test_a_stop_asks_for_the_time_of_its_drain(
    daemons: Daemons, manager: Manager, folder: Path
) -> None:
    daemon = daemons(NOTIFY_SOCKET=str(folder / "notify"), LUNAR_DRAIN="300s")
    await daemon.start()
    daemon.signal(signal.SIGTERM)
    assert await manager.until("STOPPING")
    assert int((await manager.until("EXTEND_TIMEOUT_USEC"))["EXTEND_TIMEOUT_USEC"]) > 300_000_000
    assert await daemon.exit() == 0


async def test_a_reload_is_told_from_its_beginning_to_its_end(
    daemons: Daemons, manager: Manager, folder: Path
) -> None:
    daemon = daemons(NOTIFY_SOCKET=str(folder / "notify"))
    await daemon.start()
    assert await manager.until("READY")
    daemon.signal(signal.SIGHUP)
    assert await manager.until("RELOADING")
    assert await manager.until("READY")


async def test_the_watchdog_of_a_daemon_at_work_is_fed(
    daemons: Daemons, manager: Manager, folder: Path
) -> None:
    daemon = daemons(NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="6000000")
    await daemon.start()
    for _ in range(2):  # a third of that apart
        assert await manager.until("WATCHDOG")
    assert not list((daemon.data_dir / "sessions").iterdir())  # the probe leaves no session behind
