"""kill -9 at random while ten chats talk: every message answered, none twice, order kept, nothing leaked.

`LUNAR_TEST_KILLS=200` makes it long; the seed of a failed run is in its message, LUNAR_TEST_SEED repeats it.
"""

import asyncio
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.turn_run import GAVE_UP
from tests.fakes.daemon import Daemon
from tests.fakes.openai_behaviours import Say
from tests.fakes.telegram_server import TelegramServer

TOKEN = "123456:AAkill9kill9kill9kill9kill9kill9kil"
KILLS = int(os.environ.get("LUNAR_TEST_KILLS", "6"))
PEOPLE = 10
WORD = re.compile(r"\bp\d+m\d+\b")


class Trial:
    """Ten people, one bot, and a daemon that is killed again and again."""

    def __init__(self, daemon: Daemon, telegram: TelegramServer, dice: random.Random) -> None:
        self.daemon = daemon
        self.telegram = telegram
        self.dice = dice
        self.people = [telegram.user(100 + number, f"P{number}") for number in range(PEOPLE)]
        self.said: dict[int, list[str]] = {number: [] for number in range(PEOPLE)}
        self.over = False

    async def talk(self, number: int) -> None:
        """One person: says something, now and then two things at once, until the killing is over."""
        while not self.over:
            for _ in range(self.dice.choice((1, 1, 1, 2))):
                word = f"p{number}m{len(self.said[number])}"
                self.said[number].append(word)
                self.people[number].says(f"Tell me about {word}, please.")
            # Slower than answers come: each takes two calls, and Telegram allows one a second in a chat.
            await asyncio.sleep(self.dice.uniform(1.5, 6.0))

    async def kill(self, times: int) -> None:
        """Kill and start again; after every second kill it lives for three seconds at least."""
        for number in range(times):
            await asyncio.sleep(self.dice.uniform(0.05, 1.0) + (3.0 if number % 2 else 0.0))
            await self.daemon.kill()
            await self.daemon.start()
        self.over = True

    def answers(self, number: int) -> list[str]:
        """The words that the bot's messages hold, in the order of the chat, as the person sees them now."""
        shown = [m.text or "" for m in self.people[number].chat.messages if m.by_bot and not m.deleted]
        return [word for text in shown for word in WORD.findall(text)]

    def given_up(self) -> set[str]:
        """Words of the turns that three kills hit, which end in an apology."""
        words: set[str] = set()
        for session in self.daemon.kept.sessions():
            events = self.daemon.events(session)
            texts = {event["id"]: event["content"] for event in events if event["role"] == "user"}
            for event in events:
                if event.get("name") == "turn_failed" and event["content"] == GAVE_UP:
                    words |= {word for id in event["answers"] for word in WORD.findall(texts[id])}
        return words

    def missing(self) -> list[str]:
        given_up = self.given_up()
        return [
            word
            for number in range(PEOPLE)
            for word in self.said[number]
            if word not in given_up and word not in self.answers(number)
        ]


def reply(body: dict[str, Any]) -> Say:
    """An answer that names every word of the question once, at its very end.

    A bubble that a crash left behind has the beginning at most: so whoever sees a word saw a whole answer.
    """
    words = WORD.findall(body["messages"][-1]["content"])
    return Say(
        "Here is what I know, in a few more words than needed: " + " ".join(words), size=12, delay=0.03
    )


@pytest.mark.parametrize(("mode", "kills"), [("each", (KILLS + 1) // 2), ("collect", KILLS // 2)])
async def test_killed_while_ten_chats_talk(daemons, openai, mode, kills):
    seed = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    openai.reply = reply
    async with TelegramServer(TOKEN) as telegram:
        daemon = daemons(
            server=openai,
            TELEGRAM_BOT_TOKEN=TOKEN,
            LUNAR_CHANNELS__TELEGRAM__API_URL=telegram.api_url,
            LUNAR_CHANNELS__TELEGRAM__ALLOW=str([str(100 + number) for number in range(PEOPLE)]),
            LUNAR_QUEUE__MODE=mode,
        )
        trial = Trial(daemon, telegram, random.Random(seed))
        await daemon.start()
        await asyncio.gather(trial.kill(kills), *(trial.talk(number) for number in range(PEOPLE)))
        try:
            async with asyncio.timeout(60):
                while trial.missing():  # noqa: ASYNC110 - what people see has no event to wait for
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"LUNAR_TEST_SEED={seed}: never answered: {trial.missing()[:10]}")
        await daemon.stop()
        for number in range(PEOPLE):
            got = trial.answers(number)
            assert len(set(got)) == len(got), f"LUNAR_TEST_SEED={seed}: answered twice: {got}"
            wanted = [word for word in trial.said[number] if word in got]
            assert got == wanted, f"LUNAR_TEST_SEED={seed}: out of order: {got}"
            assert all(word.startswith(f"p{number}m") for word in got), "crossed"
    said = sum(map(len, trial.said.values()))
    print(f"{mode}: {kills} kills, {said} messages, {len(trial.given_up())} in turns that three kills hit")
    _check_transcripts(daemon, trial)
    _check_no_token(daemon)


def _check_transcripts(daemon: Daemon, trial: Trial) -> None:
    for number in range(PEOPLE):
        events = daemon.events(f"agent:main:telegram:user:{100 + number}")
        asked = [event["id"] for event in events if event["role"] == "user"]
        closed = [id for event in events for id in event.get("answers") or ()]
        assert len(set(asked)) == len(asked) == len(trial.said[number])
        assert closed == asked


def _check_no_token(daemon: Daemon) -> None:
    secret = TOKEN.partition(":")[2]
    assert secret not in str(daemon.log)
    assert secret not in "".join(daemon.noise)
    for path in Path(daemon.data_dir).rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
