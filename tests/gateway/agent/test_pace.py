"""Reading a reply that is shown: in step with time, the first text at once, and nothing lost."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from itertools import pairwise
from typing import ClassVar

import httpx2
import pytest

from gateway.agent import model
from gateway.agent.endpoint import Endpoint
from gateway.agent.pace import Pace, Pauses, connection_of
from gateway.agent.reply import Finish, Text
from tests.fakes.openai_server import OpenAIServer, Say

TIMEOUT = 30.0
HI = [{"role": "user", "content": "hi"}]
WORDS = "".join(f"word{number} " for number in range(100))


class Reading(asyncio.Transport):
    """A transport that knows what it was told."""

    def __init__(self, *, closed: bool = False) -> None:
        super().__init__()
        self.closed = closed
        self.told: list[str] = []
        self.resumed = asyncio.Event()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")
        self.resumed.set()


class Noted(Reading):
    """One that notes when it is read again."""

    def __init__(self, number: int, read: list[int]) -> None:
        super().__init__()
        self.number = number
        self.read = read

    def resume_reading(self) -> None:
        super().resume_reading()
        self.read.append(self.number)


async def test_after_the_first_text_it_reads_on_at_once() -> None:
    transport = Reading()
    pace = Pace(lambda: transport, Pauses())
    pace.shown(100.0)
    pace.shown(100.01)  # a tenth of that is not worth a wait
    assert transport.told == []


async def test_later_it_waits_and_reads_on() -> None:
    transport = Reading()
    pace = Pace(lambda: transport, Pauses())
    pace.shown(100.0)
    pace.shown(101.0)
    assert transport.told == ["pause"]
    async with asyncio.timeout(TIMEOUT):
        await transport.resumed.wait()
    assert transport.told == ["pause", "resume"]


async def test_a_connection_that_is_gone_is_left_alone() -> None:
    gone, nowhere = Reading(closed=True), Pace(lambda: None, Pauses())
    going = Pace(lambda: gone, Pauses())
    for pace in (going, nowhere):
        pace.shown(100.0)
        pace.shown(101.0)
    assert gone.told == []


async def test_a_connection_that_goes_meanwhile_is_left_alone() -> None:
    pauses, gone, behind = Pauses(), Reading(), Reading()
    pauses.pause(gone, 0.001)
    pauses.pause(behind, 0.002)
    gone.closed = True
    async with asyncio.timeout(TIMEOUT):
        await behind.resumed.wait()
    assert gone.told == ["pause"]


async def test_whoever_is_due_first_is_read_first() -> None:
    pauses, read = Pauses(), list[int]()
    transports = [Noted(number, read) for number in range(5)]
    for number in (3, 1, 4, 0, 2):
        pauses.pause(transports[number], 0.005 * number)
    async with asyncio.timeout(TIMEOUT):
        await transports[4].resumed.wait()
    assert read == [0, 1, 2, 3, 4]


async def test_however_many_are_due_others_have_their_turn() -> None:
    pauses, read, turns = Pauses(), list[int](), list[int]()
    transports = [Noted(number, read) for number in range(500)]
    for transport in transports:
        pauses.pause(transport, 0.0)
    async with asyncio.timeout(TIMEOUT):
        while len(read) < len(transports):
            turns.append(len(read))
            await asyncio.sleep(0)
    assert max(after - before for before, after in pairwise(turns)) < 100
    assert read == list(range(500))


def test_a_stream_of_another_kind_has_no_connection() -> None:
    assert connection_of(httpx2.ByteStream(b"data"))() is None


class Watched(Pace):
    """Keeps the ways to the connections, and how often a transport was there."""

    ways: ClassVar[list[Callable[[], asyncio.Transport | None]]] = []
    found: ClassVar[list[bool]] = []

    def __init__(self, connection: Callable[[], asyncio.Transport | None], pauses: Pauses) -> None:
        super().__init__(connection, pauses)
        self.ways.append(connection)
        self._way = connection

    def shown(self, now: float) -> None:
        transport = self._way()
        self.found.append(isinstance(transport, asyncio.Transport))
        super().shown(now)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr(Watched, "ways", [])
    monkeypatch.setattr(Watched, "found", [])
    monkeypatch.setattr(model, "Pace", Watched)
    return Watched


async def test_the_libraries_lead_to_the_connection_while_the_answer_has_it(watched: type[Watched]) -> None:
    async with OpenAIServer() as server, asyncio.timeout(TIMEOUT):
        asked = model.Model(Endpoint(server.base_url, "gpt-x", "none"))
        server.script(Say(WORDS, size=7, delay=0.005))
        pieces = [piece async for piece in asked.ask(HI, [])]
        await asked.close()
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == WORDS
    assert isinstance(pieces[-1], Finish)
    assert watched.found[0]
    assert [way() for way in watched.ways] == [None]


async def test_leaving_while_it_waits_does_no_harm(watched: type[Watched]) -> None:
    async with OpenAIServer() as server, asyncio.timeout(TIMEOUT):
        asked = model.Model(Endpoint(server.base_url, "gpt-x", "none"))
        server.script(Say(WORDS, size=7, delay=0.005), Say("And now?"))
        async with aclosing(asked.ask(HI, [])) as pieces:
            async for piece in pieces:
                if isinstance(piece, Text) and len(watched.found) > 10:
                    break
        again = [piece.text async for piece in asked.ask(HI, []) if isinstance(piece, Text)]
        await asked.close()
    assert "".join(again) == "And now?"
