"""The shipped units under a real systemd: what they promise to whoever operates the gateway."""

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter

import pytest

from tests.fakes.openai_server import Hang, Say
from tests.systemd.gateway import LUNAR, PORT, SERVICE, Gateway

pytestmark = pytest.mark.xdist_group("systemd")
LOCAL = "agent:main:cli:local"
SECRETS = {
    "openai_api_key": "sk-canary-0123456789abcdef",
    "telegram_bot_token": "123456789:AAcanary-canary-canary-canary-canar",
    "lunar_http_token": "canary-token-of-the-page",
}


async def test_it_is_active_only_when_it_is_ready(gateway: Gateway) -> None:
    await gateway.systemctl("stop", SERVICE)
    await gateway.systemctl("start", "--no-block", SERVICE)
    async with asyncio.timeout(10):
        while not gateway.pid:  # noqa: ASYNC110 - a process of another machine
            await asyncio.sleep(0.01)
    gateway.kill("STOP")
    assert gateway.show("ActiveState") == "activating"
    waiting = asyncio.create_task(gateway.get("/healthz"))
    await asyncio.wait({waiting}, timeout=0.5)
    assert (waiting.done(), gateway.show("ActiveState")) == (False, "activating")
    gateway.kill("CONT")
    assert (await waiting)[0] == 200  # it had connected before anybody could accept
    await gateway.until(ActiveState="active", StatusText="cli: ready; http: ready")


async def test_secrets_are_credentials_of_a_user_that_exists_only_now(gateway: Gateway) -> None:
    for name, secret in SECRETS.items():
        gateway.write(f"/etc/credstore/lunar.{name}", f"{secret}\n", 0o600)
    telegram = gateway.machine.listener()
    telegram.setblocking(False)
    gateway.configure(channels={"telegram": {"api_url": f"http://127.0.0.1:{telegram.getsockname()[1]}"}})
    await gateway.systemctl("restart", SERVICE)  # which does not wait for a Telegram that never answers
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        asked, _ = await loop.sock_accept(telegram)
        assert f"/bot{SECRETS['telegram_bot_token']}/".encode() in await loop.sock_recv(asked, 4096)
    asked.close()
    telegram.close()

    await (await gateway.client()).ask("hello")
    assert gateway_key(gateway) == f"Bearer {SECRETS['openai_api_key']}"
    body = json.dumps({"session": "x" * 43})
    asked_for = ("/api/session", f"X-Lunar-Token: {SECRETS['lunar_http_token']}")
    assert (await gateway.get(*asked_for, method="DELETE", body=body))[0] == 404
    assert (await gateway.get("/api/session", "X-Lunar-Token: guessed", method="DELETE", body=body))[0] == 401

    uid = (await gateway.run("stat", "--format=%u", f"/proc/{gateway.pid}")).strip()
    assert 61184 <= int(uid) <= 65519  # where systemd takes its dynamic users from
    assert f":{uid}:" not in await gateway.run("cat", "/etc/passwd")
    seen = await gateway.run("sh", "-c", f"cat /proc/{gateway.pid}/environ /proc/{gateway.pid}/cmdline")
    assert not [name for name, secret in SECRETS.items() if secret in seen + gateway.journal()]
    modes = await gateway.run("stat", "--format=%a", "/var/lib/private/lunar", "/run/lunar")
    assert modes.split() == ["700", "700"]


async def test_the_address_of_a_database_is_a_credential_too(gateway: Gateway) -> None:
    secret = "canary-of-the-database"
    url = f"mysql://lunar:{secret}@127.0.0.1/lunar\n"  # no driver is installed here: it is read, and refused
    gateway.write("/etc/credstore/lunar.lunar_store_url", url, 0o600)
    await gateway.run("systemctl", "restart", SERVICE, check=False)
    await gateway.written("lunar_store_url (store.url): must begin with postgresql://")
    assert secret not in gateway.journal()


def gateway_key(gateway: Gateway) -> str:
    return gateway._model.requests[-1].headers["authorization"]


async def test_a_reload_takes_the_configuration_over_or_says_why_not(gateway: Gateway) -> None:
    pid = gateway.pid
    gateway.configure(drain="7s")
    await gateway.systemctl("reload", SERVICE)
    await gateway.written('"changed":["drain"]')
    gateway.configure(drain="seven")
    await gateway.systemctl("reload", SERVICE)
    await gateway.written("drain: must be a number with a unit")
    await gateway.until(ActiveState="active", SubState="running")
    async with asyncio.timeout(10):
        while "drain" not in gateway.show("StatusText"):  # noqa: ASYNC110 - told every two seconds
            await asyncio.sleep(0.1)
    assert (gateway.pid, gateway.show("NRestarts")) == (pid, "0")


async def test_a_stop_waits_for_the_reply_longer_than_the_unit_says(gateway: Gateway) -> None:
    gateway.drop_in("TimeoutStopSec=1s")
    await gateway.systemctl("restart", SERVICE)
    gateway._model.script(Hang(Say("At last.")))
    client = await gateway.client()
    message = await client.say("think about it")
    await gateway._model.until(lambda server: len(server.requests) == 1)
    began = time.monotonic()
    stopping = asyncio.create_task(gateway.systemctl("stop", SERVICE))
    await gateway.until(ActiveState="deactivating")
    assert "shutting down" in gateway.show("StatusText")
    # Without EXTEND_TIMEOUT_USEC systemd would have killed it by now.
    await asyncio.wait({stopping}, timeout=2.5 - (time.monotonic() - began))
    assert not stopping.done()
    gateway._model.release.set()
    assert (await client.closed(message["id"]))["content"] == "At last."
    await stopping
    assert gateway.machine.show(SERVICE, "Result", "ExecMainStatus", "ActiveState") == [
        "success",
        "0",
        "inactive",
    ]


async def test_a_loop_that_is_blocked_is_restarted(gateway: Gateway) -> None:
    gateway.drop_in("WatchdogSec=2s")
    await gateway.systemctl("restart", SERVICE)
    gateway.kill("STOP")
    await gateway.until(NRestarts="1", ActiveState="active")
    # The journal is behind what happens: it takes what was said in its own time.
    await gateway.written("Watchdog timeout")
    await gateway.written("Fatal Python error: Aborted")  # with the place of every thread
    await gateway.written("asyncio/runners.py")
    assert (await (await gateway.client()).ask("still there?"))["content"] == "echo: still there?"


async def test_a_full_disk_and_a_dead_model_are_no_reason_to_restart(gateway: Gateway) -> None:
    gateway.drop_in("WatchdogSec=2s")
    gateway.configure(model={"base_url": "http://127.0.0.1:9/v1", "name": "nobody"})
    await gateway.systemctl("restart", SERVICE)
    await gateway.run("dd", "if=/dev/zero", "of=/var/lib/private/filling", "bs=64k", check=False)
    try:
        async with asyncio.timeout(15):
            while "No space left" not in gateway.show("StatusText"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert (await gateway.get("/healthz"))[0] == 503
        pings = {gateway.show("WatchdogTimestampMonotonic")}
        async with asyncio.timeout(15):
            while len(pings) < 6:  # four seconds, at three pings in two
                pings.add(gateway.show("WatchdogTimestampMonotonic"))
                await asyncio.sleep(0.05)
        assert gateway.show("NRestarts") == "0"
    finally:
        await gateway.run("rm", "/var/lib/private/filling")
    await gateway.until(StatusText="cli: ready; http: ready")


async def test_a_wrong_configuration_ends_it_until_somebody_starts_it(gateway: Gateway) -> None:
    await gateway.systemctl("stop", SERVICE)
    gateway.configure(drain="seven")
    async with asyncio.timeout(10):
        knocking = [await gateway.connected() for _ in range(5)]  # the first of which starts it
        for connection in knocking:
            # Nobody keeps the visitors waiting for a gateway that will not come.
            with contextlib.suppress(ConnectionResetError):
                assert not await asyncio.get_running_loop().sock_recv(connection, 1)
            connection.close()
    await gateway.until(ActiveState="failed", NRestarts="0", ExecMainStatus="78")
    await gateway.until("lunar.socket", ActiveState="inactive")
    with pytest.raises(ConnectionRefusedError):
        await gateway.connected()

    assert gateway.journal().count("drain: must be") == 1
    assert gateway.show("ActiveState", "lunar-failed.target") == "active"

    gateway.configure()
    await gateway.systemctl("restart", SERVICE)
    assert (await gateway.get("/healthz"))[0] == 200
    assert gateway.show("ActiveState", "lunar-failed.target") == "inactive"


async def test_what_a_kill_left_open_is_answered(gateway: Gateway) -> None:
    gateway._model.script(Hang())
    client = await gateway.client()
    message = await client.say("are you alive?")
    await gateway._model.until(lambda server: len(server.requests) == 1)
    gateway.kill("KILL")
    await gateway.until(NRestarts="1", ActiveState="active")
    client = await gateway.client()
    assert (await client.closed(message["id"]))["content"] == "echo: are you alive?"
    assert [event["content"] for event in gateway.events(LOCAL) if event["role"] == "assistant"] == [
        "echo: are you alive?"
    ]


async def test_it_is_tried_again_for_as_long_as_it_takes(gateway: Gateway) -> None:
    gateway.drop_in("RestartSec=10ms", "ExecStartPre=/bin/false")
    await gateway.systemctl("restart", SERVICE, check=False)
    async with asyncio.timeout(20):
        while int(gateway.show("NRestarts")) < 12:  # noqa: ASYNC110 - the default limit is at 5 in 10 s
            await asyncio.sleep(0.1)
    gateway.drop_in()
    await gateway.until(ActiveState="active")


async def test_members_of_the_group_talk_and_others_do_not(gateway: Gateway) -> None:
    group = (await gateway.run("getent", "group", "lunar")).split(":")[2]
    person = ["env", "HOME=/tmp", "setpriv", "--reuid=4242", "--regid=4242"]
    said = await gateway.run(*person, f"--groups={group}", LUNAR, "chat", "hello", check=False)
    assert "echo: hello" in said
    assert gateway.events("agent:main:cli:uid:4242")
    refused = await gateway.run(*person, "--clear-groups", LUNAR, "chat", "hello", check=False)
    assert "group lunar" in refused


async def test_no_connection_is_refused_over_twenty_restarts(gateway: Gateway) -> None:
    knocking = Knocking(gateway)
    task = asyncio.create_task(knocking.knock(per_second=200))
    for _ in range(20):
        await gateway.systemctl("restart", SERVICE)
        # The queue is served in its order: everybody who came before this one has been let in.
        assert (await gateway.get("/healthz"))[0] == 200
    knocking.enough = True
    await task
    assert gateway.journal().count("Started lunar.service") >= 20
    assert set(knocking.outcomes) == {b"200", b"welcome"}, knocking.outcomes


class Knocking:
    """People who come at a steady rate to the HTTP port, and every tenth to the Unix socket."""

    def __init__(self, gateway: Gateway) -> None:
        self.outcomes: Counter[bytes] = Counter()
        self.enough = False
        self._machine = gateway.machine
        self._path = str(gateway.machine.path("/run/lunar-gateway.sock"))
        self._made: list[socket.socket] = []  # in the machine's network, not connected yet

    async def knock(self, per_second: int) -> None:
        """Go on until it is `enough`, and until everybody has an outcome."""
        clock = asyncio.get_running_loop().time
        began = clock()
        tasks: list[asyncio.Task[None]] = []
        while not self.enough:
            while len(tasks) < (clock() - began) * per_second:
                tasks.append(asyncio.create_task(self._one(over_http=len(tasks) % 10 > 0)))
            if len(self._made) < per_second:
                self._made += await asyncio.to_thread(self._machine.inside, self._sockets, per_second)
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
        for unused in self._made:
            unused.close()

    @staticmethod
    def _sockets(count: int) -> list[socket.socket]:
        return [socket.socket() for _ in range(count)]

    async def _one(self, over_http: bool) -> None:
        loop = asyncio.get_running_loop()
        if over_http:
            connection = self._made.pop() if self._made else self._machine.inside(socket.socket)
            asked = b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
        else:
            connection = socket.socket(socket.AF_UNIX)
            asked = b'{"type":"hello","protocol":1,"session":"knock"}\n'
        connection.setblocking(False)
        try:
            async with asyncio.timeout(60):
                await loop.sock_connect(connection, ("127.0.0.1", PORT) if over_http else self._path)
                await loop.sock_sendall(connection, asked)
                answer = await loop.sock_recv(connection, 1024)
            self.outcomes[answer.split()[1] if over_http else json.loads(answer)["type"].encode()] += 1
        except (OSError, TimeoutError, ValueError, IndexError) as error:
            self.outcomes[repr(error).encode()] += 1
        finally:
            connection.close()


async def test_the_units_are_what_systemd_expects(gateway: Gateway) -> None:
    folder = "/etc/systemd/system"
    assert not await gateway.run(
        "systemd-analyze",
        "verify",
        *(f"{folder}/lunar{kind}" for kind in (".service", ".socket", "-failed.target")),
    )
    listening = gateway.show("Listen", "lunar.socket").splitlines()
    assert listening == ["127.0.0.1:8420 (Stream)", "/run/lunar-gateway.sock (Stream)"]


async def test_installing_is_idempotent_and_undone(gateway: Gateway) -> None:
    assert "Nothing to do." in await gateway.run(LUNAR, "service", "install")
    assert "as shipped" in await gateway.run(LUNAR, "service", "status")
    gateway.configure(http={"port": 8421})
    assert "lunar.socket.d/50-lunar-install.conf (new)" in await gateway.run(LUNAR, "service", "install")
    assert "8421" in gateway.show("Listen", "lunar.socket")
    assert "/run/lunar-gateway.sock" in gateway.show("Listen", "lunar.socket")
    await gateway.client()
    gateway.configure()
    assert "remove" in await gateway.run(LUNAR, "service", "install")
    assert (await gateway.get("/healthz"))[0] == 200

    would = await gateway.run(LUNAR, "service", "uninstall", "--dry-run")
    assert gateway.show("ActiveState") == "active"
    did = await gateway.run(LUNAR, "service", "uninstall")
    assert [line.removeprefix("would ") for line in would.splitlines()] == did.splitlines()
    assert "Nothing to do." in await gateway.run(LUNAR, "service", "uninstall")
    assert (gateway.show("LoadState"), gateway.show("ActiveState")) == ("not-found", "inactive")
    left = await gateway.run("find", "/etc/systemd", "/etc/sysusers.d", "-name", "*lunar*")
    assert not left
    assert gateway.machine.path("/etc/lunar/config.yaml").exists()
    assert gateway.machine.path("/var/lib/private/lunar/sessions").exists()
