"""kill -9 at random while people on three channels talk, judged by the ledger."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import NamedTuple

from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.faults import invariants
from tests.faults.people import WORD, Chatter, Client
from tests.faults.world import TOKEN, World

TEXTS = ("hello", "please stamp", "tell me about", "tell me about", "long please")


class Load:
    """People at terminals, in browsers and in Telegram, who talk until it is over; `calm` is how seldom."""

    texts: tuple[str, ...] = TEXTS

    def __init__(
        self, world: World, *, terminals: int = 3, browsers: int = 3, chatters: int = 4, calm: float = 1.0
    ) -> None:
        self.world = world
        self.clients = [world.terminal(f"term{n}") for n in range(terminals)]
        self.clients += [world.browser(f"web{n}") for n in range(browsers)]
        self.chatters = [world.chatter(f"tele{n}") for n in range(chatters)]
        self.over = False
        self._calm = calm

    async def talk(self, someone: Client | Chatter) -> None:
        """Say something now and then, slower than answers come."""
        dice, slow = self.world.dice, isinstance(someone, Chatter)
        while not self.over:
            someone.say(f"{dice.choice(self.texts)} {someone.name}w{len(someone.said)}")
            if isinstance(someone, Client) and dice.random() < 0.1:
                someone.say(dice.choice(["/stop", "/status"]), command=True)
            await asyncio.sleep(dice.uniform(1.5, 6.0) if slow else self._calm * dice.uniform(0.2, 2.0))

    async def kill(self, times: int) -> None:
        """Kill and start again; after every second kill it lives for some seconds."""
        for number in range(times):
            await asyncio.sleep(self.world.dice.uniform(0.02, 1.0) + (3.0 if number % 2 else 0.0))
            await self.world.daemon.kill()
            await self.world.daemon.start()
        self.over = True

    def missing(self) -> list[str]:
        """What somebody still waits for."""
        owed = [id for client in self.clients for id in client.owed()]
        for chatter in self.chatters:
            given_up = self.world.given_up(chatter.session)
            shown = set(chatter.shown())
            owed += [
                word
                for said in chatter.said
                if said.id not in given_up
                for word in WORD.findall(said.text)
                if word not in shown
            ]
        return owed


class Killing(NamedTuple):
    """One trial: what it is repeated by, and how long it is."""

    seed: int
    kills: int


class Figures(NamedTuple):
    """What a trial that held came to."""

    messages: int
    effects: int  # of the tool `stamp`
    given_up: int  # messages in turns that three kills hit


async def killed(folder: Path, trial: Killing) -> Figures:
    """Raises `AssertionError`, with the seed, where an invariant does not hold."""
    async with OpenAIServer() as openai, TelegramServer(TOKEN) as telegram:
        world = World(folder, openai, telegram, random.Random(trial.seed), open_to_all=True)
        load = Load(world)
        try:
            await world.daemon.start()
            async with world.living():
                await asyncio.gather(
                    load.kill(trial.kills), *(load.talk(someone) for someone in world.everybody)
                )
                # A browser may say 30 things a minute, and on a slow machine much has piled up by now.
                most = max(len(client.owed()) for client in load.clients)
                await world.until(lambda: not load.missing(), "everybody's answers", 60.0 + 3.0 * most)
            await world.daemon.stop()
            invariants.check(world)
        except AssertionError as error:
            told = f"{error} {load.missing()[:10]} {world.daemon.noise[-10:]}"
            raise AssertionError(f"LUNAR_TEST_SEED={trial.seed}: {told}") from error
        finally:
            await world.daemon.close()
    given_up = sum(len(world.given_up(someone.session)) for someone in world.everybody)
    return Figures(sum(len(someone.said) for someone in world.everybody), len(world.stamped), given_up)
