"""When each client is pinged, and when one that does not answer is let go of."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from channels.webchat.heartbeat import Heartbeat
from channels.webchat.websocket import WebSocket

OVER = 300.0


class Client:
    """One that is pinged; it falls silent at some time."""

    def __init__(self, times: Times, silent: float = OVER) -> None:
        self.lost = False
        self.pings: list[float] = []
        self.lost_at: float | None = None
        self._times = times
        self._silent = silent

    def ping(self) -> None:
        self.pings.append(self._times.now)

    def check(self) -> None:
        if self._times.now > self._silent:
            self.lost, self.lost_at = True, self._times.now


class Times:
    """The clock, which passes where somebody sleeps; `at` has what happens then."""

    def __init__(self) -> None:
        self.now = self.turn = 0.0  # `turn`: what a turn of the loop takes
        self.at: dict[float, Client | float] = {}  # who comes, or how long the gateway stands still
        self.heartbeat = Heartbeat(lambda: self.now, self.sleep)

    async def sleep(self, seconds: float) -> None:
        until = self.now + max(seconds, self.turn)
        for when in sorted(self.at):
            if when <= until:
                self.now = max(self.now, when)
                self._happen(self.at.pop(when))
        self.now = max(self.now, until)
        if self.now > OVER:
            raise asyncio.CancelledError

    def _happen(self, what: Client | float) -> None:
        if isinstance(what, Client):
            self.heartbeat.add(cast("WebSocket", what))
        else:
            self.now += what

    async def pass_by(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            await self.heartbeat.run()


@pytest.fixture
def times() -> Times:
    return Times()


async def test_each_client_is_pinged_every_20_seconds_from_when_it_came(times: Times) -> None:
    early, late = Client(times), Client(times)
    times.at = {3.0: early, 4.5: late}
    await times.pass_by()
    assert early.pings == [13.0 + 20 * n for n in range(15)]
    assert late.pings == [14.5 + 20 * n for n in range(15)]


async def test_who_falls_silent_is_let_go_of_within_30_seconds_however_many_there_are(times: Times) -> None:
    clients = [Client(times, silent=40 + number * 0.05) for number in range(1000)]
    times.at = {number * 0.01: client for number, client in enumerate(clients)}
    await times.pass_by()
    deaf = [client.lost_at - client._silent for client in clients if client.lost_at is not None]
    assert len(deaf) == len(clients)
    assert max(deaf) <= 30.0


async def test_many_are_looked_at_in_one_turn_of_the_loop(times: Times) -> None:
    clients = [Client(times, silent=40.0) for _ in range(1000)]
    times.at = {number * 0.001: client for number, client in enumerate(clients)}
    times.turn = 0.02  # a turn for each would take 20 seconds
    await times.pass_by()
    assert all(client.lost_at for client in clients)


async def test_who_is_gone_is_not_pinged(times: Times) -> None:
    client = Client(times)
    times.at = {1.0: client}
    client.lost = True
    await times.pass_by()
    assert client.pings == []


async def test_a_gateway_that_stood_still_asks_again_before_it_lets_go(times: Times) -> None:
    client = Client(times, silent=OVER)
    times.at = {0.0: client, 15.0: 60.0}  # it was pinged at 10, and its answer could not be read yet at 75
    client._silent = 14.0
    real = client.ping

    def ping() -> None:
        real()
        if times.now > 70:
            client._silent = OVER  # now it is read

    client.ping = ping  # type: ignore[method-assign] # it notes when
    await times.pass_by()
    assert client.pings[:3] == [10.0, 75.0, 95.0]
    assert client.lost_at is None
