"""The WebSocket: CPU of opening a session and of a message, memory of an idle one, beside an aiohttp echo."""

from __future__ import annotations

import asyncio
from statistics import median

import uvloop

from benchmarks.frames import HELLO, Client
from benchmarks.pairs import paired
from benchmarks.process import cpu, gateway, many_files, resident, running, told
from benchmarks.table import Row, microseconds, row

AT_ONCE = 50
BURST = 10  # messages that a new connection may say at once
OPENED, QUICK_OPENED = 1_000, 250
IDLE, QUICK_IDLE = 10_000, 2_000
ROUNDS = 5  # in which the idle come: the memory of each is a figure of its own


class Server:
    """A process that serves a WebSocket."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port

    async def come(self, count: int) -> list[Client]:
        """So many clients, each with a session of its own."""

        async def one() -> Client:
            client = await Client.open(self.port)
            await client.ask(HELLO)
            return client

        found: list[Client] = []
        for _ in range(count // AT_ONCE):
            found += await asyncio.gather(*(one() for _ in range(AT_ONCE)))
        return found

    def opening(self, count: int) -> float:
        """CPU seconds of opening one session, of so many."""

        async def measured() -> float:
            before = cpu(self.pid)
            clients = await self.come(count)
            spent = cpu(self.pid) - before
            _leave(clients)
            return spent / count

        return uvloop.run(measured())

    def message(self, count: int) -> float:
        """CPU seconds of a `/help` and its answer, of so many connections' bursts."""

        async def talk(client: Client) -> None:
            for number in range(BURST):
                await client.ask({"type": "message", "id": f"m{number}", "text": "/help"})

        async def measured() -> float:
            clients = await self.come(count)
            before = cpu(self.pid)
            for begin in range(0, count, AT_ONCE):
                await asyncio.gather(*map(talk, clients[begin : begin + AT_ONCE]))
            spent = cpu(self.pid) - before
            _leave(clients)
            return spent / count / BURST

        return uvloop.run(measured())

    def idle(self, count: int) -> list[float]:
        """Bytes of memory of an idle connection, each of the rounds in which they come."""

        async def measured() -> list[float]:
            clients = await self.come(AT_ONCE)
            sizes = []
            for _ in range(ROUNDS):
                before = resident(self.pid)
                clients += await self.come(count // ROUNDS)
                sizes.append((resident(self.pid) - before) * (1 << 20) / (count // ROUNDS))
            _leave(clients)
            return sizes

        return uvloop.run(measured())


def _leave(clients: list[Client]) -> None:
    for client in clients:
        client.transport.abort()


def _idle(count: int) -> Row:
    """Of fresh processes, which have no memory to give back to what comes."""
    with gateway(None) as daemon, running(["-m", "benchmarks.echo"]) as echo:
        mine = median(Server(daemon.pid, daemon.port).idle(count))
        floor = median(Server(echo.pid, int(told(echo))).idle(count))
    what = f"memory of an idle connection with its session, of {count:,}"
    return Row(what, f"{mine:,.0f} B", f"{floor:,.0f} B", mine / floor, "≤ 16 KB")


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    opened, idle = (QUICK_OPENED, QUICK_IDLE) if quick else (OPENED, IDLE)
    many_files(2 * idle + 500)
    with gateway(None) as daemon, running(["-m", "benchmarks.echo"]) as echo:
        mine, floor = Server(daemon.pid, daemon.port), Server(echo.pid, int(told(echo)))
        openings = paired(lambda: mine.opening(opened), lambda: floor.opening(opened), quick=quick)
        messages = paired(lambda: mine.message(opened), lambda: floor.message(opened), quick=quick)
    return [
        row("CPU of opening a session (floor: connecting)", openings, microseconds),
        row("CPU of a command and its notice (floor: an echo)", messages, microseconds),
        _idle(idle),
    ]
