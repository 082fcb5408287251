"""A daemon with a fake Bot API server, a fake model and people on three channels: what a trial plays in."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.turn_run import GAVE_UP
from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import Behaviour, CallTools, OpenAIServer, Say, last_user_text
from tests.fakes.telegram_server import TelegramServer
from tests.faults.people import WORD, Chatter, Client

TOKEN = "123456:AAfaults-faults-faults-faults-faults"
KEY = "sk-faults-0123456789abcdef"
HTTP_TOKEN = "http-token-faults-0123456789"
SECRETS = (TOKEN.partition(":")[2], KEY)
FIRST_ID = 100  # of the people in Telegram
_OUTCOMES = {"stop", "stopped", "cut", "turn_failed", "summary", "summary_failed"}
LONG = "A long reply has many sentences, and this is one of them. " * 90

_STAMP = '''
import os

def stamp(word: str) -> str:
    """Write a word down. It has an effect that must not happen twice."""
    with open(os.path.join(os.path.dirname(__file__), "stamped"), "a") as file:
        file.write(word + "\\n")
    return "stamped " + word
'''


def reply(body: dict[str, Any]) -> Behaviour:
    """What the model says: every word of the question once, at the very end. A summary has no tools."""
    asked = last_user_text(body)
    words = " ".join(WORD.findall(asked))
    if "stamp" in asked and words and body.get("tools") and body["messages"][-1]["role"] != "tool":
        return CallTools([("stamp", {"word": words.split()[0]})])
    if "long" in asked:
        return Say(LONG + words, size=400)
    if "slow" in asked:
        return Say("I take my time, and say this in many small pieces. " + words, size=3, delay=0.05)
    return Say("Here is what I know, in a few more words than needed: " + words, size=12, delay=0.01)


class World:
    """One daemon and everybody around it. `stamped` has the effects of the tool `stamp`."""

    def __init__(
        self,
        folder: Path,
        openai: OpenAIServer,
        telegram: TelegramServer,
        dice: random.Random,
        *,
        open_to_all: bool = False,
        module: str = "tests.faults.crashing",
    ) -> None:
        self.dice = dice
        self.folder = folder
        self.openai = openai
        self.telegram = telegram
        self.clients: list[Client] = []
        self.chatters: list[Chatter] = []
        openai.reply = reply
        folder.mkdir(exist_ok=True)
        (folder / "stamp.py").write_text(_STAMP)
        allowed = [str(FIRST_ID + number) for number in range(10)] if open_to_all else None
        self._module = module
        self._config = {
            "agents": {"main": {"tools": ["get_current_datetime", "stamp"], "history_turns": 6}},
            "tools": {"functions": {"stamp": {"call": f"{folder / 'stamp.py'}:stamp"}}},
            "queue": {"mode": dice.choice(["collect", "each"])},
            "channels": {"telegram": {"allow": allowed, "api_url": telegram.api_url}},
        }
        self.daemons = self._made()

    def _made(self) -> list[Daemon]:
        return [self._node(self.folder)]

    def _node(self, folder: Path, **env: str) -> Daemon:
        """A daemon on a folder of its own, not started yet."""
        env |= {
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "LUNAR_MODEL__BASE_URL": self.openai.base_url,
            "LUNAR_MODEL__NAME": "fake-1",
            "LUNAR_MODEL__API_KEY": KEY,
        }
        return Daemon(folder, module=self._module, config=self._config, env=env)

    @property
    def daemon(self) -> Daemon:
        return self.daemons[0]

    def terminal(self, name: str) -> Client:
        """Somebody with `lunar chat`, an operator."""
        return self._client(name, web=False)

    def browser(self, name: str) -> Client:
        """Somebody on the page."""
        return self._client(name, web=True)

    def _client(self, name: str, *, web: bool) -> Client:
        client = Client(name, self.daemon, web=web)
        self.clients.append(client)
        return client

    def chatter(self, name: str) -> Chatter:
        """Somebody in Telegram, a stranger yet."""
        chatter = Chatter(name, FIRST_ID + len(self.chatters), self.telegram)
        self.chatters.append(chatter)
        return chatter

    @property
    def everybody(self) -> list[Client | Chatter]:
        return [*self.clients, *self.chatters]

    @property
    def stamped(self) -> list[str]:
        file = self.folder / "stamped"
        return file.read_text().split() if file.exists() else []

    def outcomes(self) -> Counter[str]:
        """How many turns ended in which way, and how many summaries were written, or not."""
        lines = (line for someone in self.everybody for line in self.raw(someone.session).split(b"\n")[:-1])
        events = map(json.loads, lines)
        names = (event.get("finish") or event.get("name") for event in events)
        return Counter(name for name in names if name in _OUTCOMES)

    def raw(self, session: str) -> bytes:
        """A session's transcript, as it is stored; empty where there is none."""
        return self.daemon.raw(session) if self.daemon.path(session).exists() else b""

    def given_up(self, session: str) -> set[str]:
        """The messages whose turns ended in the apology that three interrupted attempts end in."""
        lines = self.raw(session).split(b"\n")[:-1]
        events = [json.loads(line) for line in lines if b"turn_failed" in line]
        return {id for event in events if event.get("content") == GAVE_UP for id in event["answers"]}

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Everybody with a connection tries to keep it."""
        lives = [asyncio.create_task(client.live()) for client in self.clients]
        try:
            yield
        finally:
            for life in lives:
                life.cancel()
            for life in await asyncio.gather(*lives, return_exceptions=True):
                if isinstance(life, Exception):
                    raise life

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Wait for what people see; it has no event of its own."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - as the docstring says
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never came: {what}") from None
