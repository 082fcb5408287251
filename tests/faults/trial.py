"""The scripted run over three channels that is crashed at every place."""

from __future__ import annotations

import json
import re

from tests.faults.people import WORD, Chatter, Client
from tests.faults.world import World

CODE = re.compile(r"/approve (\S+)")


class Script:
    """Text, tool call, /stop, a long reply, an album, pairing, and enough of it for a summary."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.term: Client = world.terminal("term0")
        self.web: Client = world.browser("web0")
        self.tele: Chatter = world.chatter("tele0")

    async def play(self) -> None:
        """Say everything; does not wait for the answers but where the next thing depends on one."""
        self._talk(self.term, "hello", "please stamp", "tell me about", "and slow")
        self._talk(self.web, "hello", "long please", "please stamp")
        await self._get_in()
        for text in ("long please", "please stamp"):
            self.tele.say(f"{text} {self._word(self.tele)}")
        self.tele.sends_album(3, f"what is on these? {self._word(self.tele)}")
        await self.world.until(lambda: len(self.term.closed) >= 3, "the answers before the slow one")
        self.term.say("/stop", command=True)
        self._talk(self.web, "one more", "and more", "last")
        self.term.say("/new", command=True)
        self._talk(self.term, "after all that")

    def _talk(self, client: Client, *texts: str) -> None:
        for text in texts:
            client.say(f"{text} {self._word(client)}")

    def _word(self, someone: Client | Chatter) -> str:
        return f"{someone.name}w{len(someone.said)}"

    async def _get_in(self) -> None:
        """A stranger gets a code, the operator approves it. Where a crash lost the code, one asks again."""
        while not (code := self._code()):
            self.tele.person.says("May I come in?")
            try:
                await self.world.until(lambda: self._code() is not None, "a code", seconds=5)
            except AssertionError:
                continue
        id = self.term.say(f"/approve {code}", command=True)
        await self.world.until(lambda: id in self.term.acknowledged, "the approval")

    def _code(self) -> str | None:
        found = [CODE.search(text) for text in self.tele.person.chat.texts()]
        return next((match[1] for match in found if match), None)

    def missing(self) -> str:
        """What somebody still waits for."""
        owed = {client.name: client.owed() for client in self.world.clients}
        words = [word for said in self.tele.said for word in WORD.findall(said.text)]
        return f"{owed} {[word for word in words if word not in self.tele.shown()]}"

    @property
    def over(self) -> bool:
        """Whether everybody has what they are owed, as far as they can see."""
        words = {word for said in self.tele.said for word in WORD.findall(said.text)}
        if any(client.owed() for client in self.world.clients) or not words <= set(self.tele.shown()):
            return False
        if not any("You may talk to me now" in text for text in self.tele.person.chat.texts()):
            return False
        return {said.id for said in self.tele.said} <= self._closed()  # a picture may come behind its album

    def _closed(self) -> set[str]:
        lines = self.world.daemon.raw(self.tele.session).split(b"\n")[:-1]
        return {id for line in lines for id in json.loads(line).get("answers") or ()}
