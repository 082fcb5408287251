"""Operators who come before the channel with pairing does."""

import asyncio
from pathlib import Path

import pytest

from channels.errors import Refused
from channels.telegram.journal import Journal
from channels.telegram.pairing import Pairing
from gateway.strangers import Strangers


async def test_an_approval_waits_for_the_channel(tmp_path: Path) -> None:
    pairing = Pairing(Journal(tmp_path / "pairing.jsonl"))
    told = pairing.knock("user:7", "Hao")
    assert told is not None
    strangers = Strangers()
    waiting = asyncio.create_task(strangers.approve(told.code))
    await asyncio.sleep(0)
    assert not waiting.done()
    strangers.come(pairing)
    assert await waiting == (True, "user:7 may talk from now on.")


async def test_a_channel_that_does_not_come_is_not_waited_for_for_ever() -> None:
    strangers = Strangers(patience=0.01)
    approved, said = await strangers.approve("ABC234")
    assert not approved
    assert said == "The channel with pairing is still starting. Please try again in a moment."
    with pytest.raises(Refused, match="still starting"):
        await strangers.known()
