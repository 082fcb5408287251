"""People on three channels who say five things a second, for as long as a soak lasts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.faults.kills import TEXTS
from tests.faults.people import WORD, Chatter, Client
from tests.faults.world import World

RATE = 5.0  # messages a second
SETTLING = 300.0  # seconds until everybody has what is owed, when the faults are over


class Talkers:
    """Everybody who talks: some stay, and now and then a guest comes, asks one thing, and leaves."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self.said = 0
        self.silent = 0.0  # seconds, so far
        self.talked = 0.0  # seconds, once it is over
        self._may_talk = asyncio.Event()
        self._may_talk.set()
        self._dice = dice
        self._staying = [
            *(world.terminal(f"term{n}") for n in range(6)),
            *(world.browser(f"web{n}") for n in range(6)),
        ]
        # Telegram allows a call a second in each chat, and an answer takes two or three.
        self._chatters = [world.chatter(f"tele{n}") for n in range(8)]
        self._guests: set[asyncio.Task[None]] = set()

    async def talk(self, seconds: float) -> None:
        """Say five things a second, whatever comes back."""
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            await asyncio.sleep(max(0.0, self.said / RATE - (now - self.silent)))
            await self._may_talk.wait()
            self.said += 1
            draw = self._dice.random()
            if draw < 0.1:
                self._guests.add(asyncio.create_task(self._visit(f"guest{self.said}")))
            else:
                people: Sequence[Client | Chatter] = self._chatters if draw < 0.3 else self._staying
                self._say(self._dice.choice(people))
        self.talked = time.monotonic() - began - self.silent
        await asyncio.gather(*self._guests)

    @property
    def talking(self) -> bool:
        return self._may_talk.is_set()

    @asynccontextmanager
    async def silence(self) -> AsyncIterator[None]:
        """Nobody says anything; entered when everybody has what is owed."""
        began = time.monotonic()
        self._may_talk.clear()
        try:
            await self.answered()
            yield
        finally:
            self.silent += time.monotonic() - began
            self._may_talk.set()

    async def answered(self) -> None:
        """Wait until everybody has what is owed; to look for it takes long after hours, so seldom."""
        ends = time.monotonic() + SETTLING
        while missing := self.missing():
            assert time.monotonic() < ends, f"never came: {missing[:10]}"
            await asyncio.sleep(1.0)

    def _say(self, someone: Client | Chatter) -> None:
        # Not as the first thing: a command alone leaves no transcript to judge.
        if isinstance(someone, Client) and someone.said and self._dice.random() < 0.03:
            someone.say(self._dice.choice(["/stop", "/status"]), command=True)
            return
        someone.say(f"{self._dice.choice(TEXTS)} {someone.name}w{len(someone.said)}")

    async def _visit(self, name: str) -> None:
        guest = self.world.browser(name)
        self._say(guest)
        living = asyncio.create_task(guest.live())
        try:
            await self.world.until(lambda: not guest.owed(), f"the answer to {name}", SETTLING)
        finally:
            living.cancel()
            await asyncio.wait({living})

    def missing(self) -> list[str]:
        """What somebody still waits for."""
        owed = [id for client in self.world.clients for id in client.owed()]
        for chatter in self._chatters:
            shown, given_up = set(chatter.shown()), self.world.given_up(chatter.session)
            waiting = [said for said in chatter.said if said.id not in given_up]
            owed += [word for said in waiting for word in WORD.findall(said.text) if word not in shown]
        return owed
