"""Lunar as a service of a `Machine`: the shipped units, unchanged; a test's own wishes are drop-ins."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from session import ids
from tests.fakes.ndjson import Client
from tests.fakes.openai_server import OpenAIServer
from tests.systemd.machine import Machine

LUNAR = "/opt/lunar/bin/lunar"
SERVICE = "lunar.service"
PORT = 8420


class Gateway:
    """`start` installs it where it is not, and leaves it running; `close` forgets what was said to it."""

    def __init__(self, machine: Machine, model: OpenAIServer) -> None:
        self.machine = machine
        self._model = model
        self._clients: list[Client] = []
        self.since = machine.mark()

    async def start(self) -> None:
        self.configure()
        if "lunar.service" not in self.machine.run("ls", "/etc/systemd/system").stdout:
            await self.run(LUNAR, "service", "install")
        else:
            await self.systemctl("restart", SERVICE)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await self.systemctl("stop", "lunar.socket", SERVICE, check=False)  # it may be uninstalled
        self.machine.run(
            "sh", "-c", "rm -rf /run/systemd/system/lunar.service.d /etc/credstore/* /var/lib/private/lunar/*"
        )
        self.machine.run("systemctl", "daemon-reload")

    def configure(self, **more: Any) -> None:
        """Write the configuration; the model is the test's server."""
        model = {"base_url": self._model.base_url, "name": "fake-1"}
        self.write("/etc/lunar/config.yaml", json.dumps({"model": model, **more}))  # JSON is YAML

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in the machine."""
        file = self.machine.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def drop_in(self, *lines: str) -> None:
        """Change the service the way an administrator would."""
        self.write(f"/run/systemd/system/{SERVICE}.d/test.conf", "\n".join(["[Service]", *lines, ""]))
        self.machine.run("systemctl", "daemon-reload")

    async def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the machine, while the test's servers go on; returns what it printed."""
        done = await asyncio.to_thread(self.machine.run, *command, check=check)
        return done.stdout + done.stderr

    async def systemctl(self, *arguments: str, check: bool = True) -> str:
        try:
            return await self.run("systemctl", *arguments, check=check)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None

    async def until(self, unit: str = SERVICE, **wanted: str) -> None:
        await asyncio.to_thread(self.machine.until, unit, **wanted)

    def show(self, name: str, unit: str = SERVICE) -> str:
        return self.machine.show(unit, name)[0]

    @property
    def pid(self) -> int:
        """The main process, as the machine counts."""
        return int(self.show("MainPID"))

    def kill(self, signal: str) -> None:
        """Send a signal to the main process, as anybody with a shell could."""
        self.machine.run("kill", f"-{signal}", str(self.pid))

    def journal(self) -> str:
        """What the service and systemd have written about it since the test began."""
        return self.machine.journal(SERVICE, self.since)

    async def written(self, words: str) -> None:
        """Wait for these words in the journal."""
        try:
            async with asyncio.timeout(30):
                while words not in await asyncio.to_thread(self.journal):  # noqa: ASYNC110 - another machine's
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not in the journal: {words}\n{self.journal()}") from None

    async def client(self, session: str = "local") -> Client:
        client = Client(self.machine.path("/run/lunar-gateway.sock"))
        self._clients.append(client)
        await client.connect()
        await client.hello(session)
        return client

    def events(self, session: str) -> list[dict[str, Any]]:
        path = Path("/var/lib/private/lunar/sessions", ids.file_name(session))
        return [json.loads(line) for line in self.machine.path(str(path)).read_text().splitlines()]

    async def connected(self) -> socket.socket:
        """A connection to the HTTP port; raises `ConnectionRefusedError` where nobody listens."""
        made = await asyncio.to_thread(self.machine.inside, socket.socket)
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", PORT))
        except BaseException:
            made.close()
            raise
        return made

    async def get(self, path: str, *headers: str, method: str = "GET", body: str = "") -> tuple[int, str]:
        """Status and body of a request to the HTTP port."""
        reader, writer = await asyncio.open_connection(sock=await self.connected())
        try:
            lines = [f"{method} {path} HTTP/1.0", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers]
            writer.write("\r\n".join([*lines, "", body]).encode())
            answer = (await reader.read()).decode()
        finally:
            writer.close()
            await writer.wait_closed()
        head, _, content = answer.partition("\r\n\r\n")
        return int(head.split()[1]), content
