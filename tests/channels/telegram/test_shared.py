"""Two nodes of one bot: what one of them learns holds on the other at once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from channels.telegram import shared
from channels.telegram.journal import Journal
from channels.telegram.moves import Moves
from channels.telegram.pairing import Code, Pairing
from channels.telegram.shared import SharedJournal
from session.errors import StorageError
from tests.channels.telegram.stage import Time


class State:
    """A `session.protocols.SharedState` that loses races, and answers, as often as it is told to."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.before_set: list[Any] = []  # each is called before one exchange
        self.lose = 0  # answers that do not come, to exchanges that are carried out

    async def state(self, name: str) -> bytes | None:
        await asyncio.sleep(0)
        return self.kept.get(name)

    async def set_state(self, name: str, value: bytes, expected: bytes | None) -> bool:
        await asyncio.sleep(0)
        if self.before_set:
            await self.before_set.pop(0)()
        if self.kept.get(name) != expected:
            return False
        self.kept[name] = value
        if self.lose:
            self.lose -= 1
            raise StorageError("the answer was lost")
        return True


class Node:
    """One node's hold on the pairing; its methods are called in threads, as the gateway does."""

    def __init__(self, state: State, folder: Path, time: Time) -> None:
        loop = asyncio.get_running_loop()
        self.pairing = Pairing(SharedJournal(state, "pairing", loop, Journal(folder / "pairing")), time)
        self.moves = Moves(SharedJournal(state, "moves", loop, Journal(folder / "moves")))

    async def knocked(self, peer: str = "user:7", name: str = "Ann") -> Code:
        code = await asyncio.to_thread(self.pairing.knock, peer, name)
        assert code is not None
        return code

    async def approve(self, code: Code) -> str | None:
        return await asyncio.to_thread(self.pairing.approve, code.code)

    async def knows(self, peer: str = "user:7") -> bool:
        await asyncio.to_thread(self.pairing.refresh)
        return self.pairing.approved(peer)


@pytest.fixture
def state() -> State:
    return State()


async def test_a_code_of_one_node_is_approved_and_revoked_on_another(
    state: State, tmp_path: Path, time: Time
) -> None:
    a, b = Node(state, tmp_path, time), Node(state, tmp_path / "b", time)
    assert not await b.knows()
    code = await a.knocked()
    assert await b.approve(code) == "user:7"
    assert await a.knows()
    assert await a.approve(code) is None  # it is good once, on whichever node
    assert await asyncio.to_thread(a.pairing.revoke, "user:7")
    assert not await b.knows()


async def test_two_nodes_that_write_at_once_both_do(state: State, tmp_path: Path, time: Time) -> None:
    a, b = Node(state, tmp_path, time), Node(state, tmp_path / "b", time)
    await a.knows()
    await b.knows()
    first: list[Code] = []

    async def overtake() -> None:
        first.append(await b.knocked("user:8", "Bea"))

    state.before_set.append(overtake)
    second = await a.knocked()
    assert await b.approve(second) == "user:7"
    assert await a.approve(first[0]) == "user:8"
    assert await a.knows("user:7")
    assert await b.knows("user:8")


async def test_an_approval_whose_answer_is_lost_holds_and_is_told(
    state: State, tmp_path: Path, time: Time
) -> None:
    node, rung = Node(state, tmp_path, time), []
    code = await node.knocked()
    node.pairing.on_approved = lambda: rung.append(1)
    state.lose = 1
    with pytest.raises(OSError, match="lost"):
        await node.approve(code)
    assert rung
    assert await node.knows()
    assert node.pairing.to_tell() == ["user:7"]


async def test_what_a_node_knew_alone_is_taken_over_once(state: State, tmp_path: Path, time: Time) -> None:
    alone = Pairing(Journal(tmp_path / "pairing"), time)
    told = alone.knock("user:7", "Ann")
    assert told is not None
    alone.approve(told.code)
    a, b = Node(state, tmp_path, time), Node(state, tmp_path / "b", time)
    assert await a.knows()
    assert await b.knows()
    assert await asyncio.to_thread(b.pairing.revoke, "user:7")
    assert not await Node(state, tmp_path, time).knows()


async def test_many_facts_are_made_few(
    state: State, tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "COMPACT_AT", 20)
    node = Node(state, tmp_path, time)
    await node.approve(await node.knocked())
    for number in range(30):
        await node.knocked(f"user:{100 + number}")
        time.now += 4000
    assert state.kept["pairing"].count(b"\n") < 25
    assert await Node(state, tmp_path, time).knows()


async def test_a_group_that_moved_is_known_on_every_node(state: State, tmp_path: Path, time: Time) -> None:
    a, b = Node(state, tmp_path, time), Node(state, tmp_path / "b", time)
    await asyncio.to_thread(a.moves.load)
    await asyncio.to_thread(b.moves.load)
    await asyncio.gather(a.moves.keep(-1, -1001), b.moves.keep(-2, -1002))
    for node in (a, b):
        await asyncio.to_thread(node.moves.load)
        assert (node.moves.origin(-1001), node.moves.origin(-1002)) == (-1, -2)
