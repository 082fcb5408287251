"""Nobody gets at anybody else's conversation, whatever form of its name they give.

Everybody says words that nobody else says; then everybody tries the ids, cursors and secrets of others in all
the forms that have opened other people's doors somewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed

from session import ids
from session.errors import BadSessionId
from tests.fakes.ndjson import Client as Lines
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.fakes.webclient import WebClient
from tests.faults import invariants
from tests.faults.figures import TORTURE, figure
from tests.faults.people import WORD, Client
from tests.faults.world import TOKEN, World

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
PAIRS = 1_000_000 if TORTURE else 20_000
PEERS = 50 if TORTURE else 9
FORMS = 1_000 if TORTURE else 25  # of each name, at most; drawn at random

# -- file names ------------------------------------------------------------------------------------

_PIECES = [
    *"abzAZ09_.-:%~/\\ '\"*?|<>&;$`\n\r\t\0\x7f",
    "..", "../", "..\\", "%2e", "%2E", "%2e%2e%2f", "%00", "%%", "%2D", "%3A", "%~", "CON", "nul", ".jsonl",
    "é", "e\u0301", "ß", "ss", "SS", "İ", "ı", "i", "I", "K", "\u212a", "Å", "\u212b", "ﬁ", "fi", "а", "a",
    "ａ", "Ａ", "／", "．", "：", "\u200d", "\u200b", "\u202e", "\ufeff", "\ud800", "\udfff", "😀", "x" * 90,
    "agent:", "main", "webchat:session:", "user:1", "chat:-100:topic:7",
]  # fmt: skip


def _mutations(session: str, dice: random.Random) -> Iterator[str]:
    """Other ids that look, sound or sort like this one."""
    at = dice.randrange(len(session) + 1)
    head, char, tail = session[:at], session[at : at + 1], session[at + 1 :]
    yield head + char.swapcase() + tail
    yield session.upper()
    yield session.casefold()
    yield head + dice.choice(_PIECES) + char + tail
    yield head + tail
    yield session[:at]
    yield session + dice.choice(_PIECES)
    yield session.replace(":", "-")
    yield session.replace("-", ":")
    yield session.replace("-", "%2D")
    yield quote(session, errors="surrogatepass")
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield unicodedata.normalize(form, session)
    yield ids.file_name(session)
    yield ids.file_name(session).removesuffix(ids.SUFFIX)


_NAME = re.compile(r"(?!\.)[a-z0-9_.%A-F~-]{1,200}\.jsonl\Z")


def test_no_two_ids_share_a_file_name() -> None:
    """Not where the file system folds case or composes characters, either: the names are plain ASCII."""
    dice = random.Random(SEED)
    seen: dict[str, str] = {}
    pairs = 0
    while pairs < PAIRS:
        session = "agent:main:" + "".join(dice.choices(_PIECES, k=dice.randint(1, 12)))
        for other in filter(None, (session, *_mutations(session, dice))):
            name = ids.file_name(other)
            assert _NAME.match(name), f"LUNAR_TEST_SEED={SEED}: {other!r} is written as {name!r}"
            known = seen.setdefault(name.casefold(), other)
            assert known == other, f"LUNAR_TEST_SEED={SEED}: {known!r} and {other!r} share {name!r}"
            assert _read_back(name) in (None, other), (
                f"LUNAR_TEST_SEED={SEED}: {name!r} is not read as {other!r}"
            )
            pairs += other != session
        if len(seen) > 200_000:
            seen.clear()
    figure("file names", pairs=pairs, collisions=0, seed=SEED)


def _read_back(name: str) -> str | None:
    try:
        return ids.from_file_name(name)
    except BadSessionId:
        return None


# -- conversations ---------------------------------------------------------------------------------


def _wide(text: str) -> str:
    """The same for whoever normalises (NFKC)."""
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def forms(id: str) -> list[str]:
    """An id, or a part of one, in every form but its own."""
    found = [
        id.upper(), id.capitalize(), id.swapcase(), f" {id}", f"{id} ", f"{id}\n", f"{id}\0", f"{id}\0.jsonl",
        f"{id}.", f"./{id}", f"../{id}", f"..%2f{id}", f"%2e%2e/{id}", f"x/../{id}", f"/{id}", f"{id}/",
        f"{id}/.", f"..\\{id}", quote(id, safe=""), "".join(f"%{ord(char):02x}" for char in id), _wide(id),
        f"{id}\u200b", f"\ufeff{id}", id.replace("e", "\u0435"), id.replace("s", "ſ"), id[:-1], f"{id}0",
        f"{id}*", "*", f"{id}.jsonl", f"{id}?", f"{id}#", f"{id}'--", f'{id}" OR 1=1', f"{id},{id}",
        f"{id}:{id}", f"::{id}", "", ".", "..", "~", "a" * 43,
    ]  # fmt: skip
    return [form for form in found if form != id]


def names_of(victim: Client) -> list[str]:
    """All by which a conversation might be called, and their forms."""
    stem = ids.file_name(victim.session).removesuffix(ids.SUFFIX)
    if not victim._web:  # its name alone opens the door, to operators
        return [*forms(victim.name), victim.session, stem]
    plain = [victim.session, victim.session.split(":", 3)[3], stem]
    digest, secret = victim.session.rpartition(":")[2], victim._secret
    padded = [digest.ljust(43, char) for char in "0A-_"]
    # The secret itself opens the door: it is all that may. What normalises to it is another one.
    near = [form for form in forms(secret) if form.strip() != secret]
    return [digest, *plain, *forms(digest), *padded, *near]


class Mallory:
    """Whoever tries; `got` is all that came back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.got: list[str] = []
        self.tried = 0

    async def attack(self, victim: Client) -> None:
        """Try the victim's names, and in a session of one's own its cursors and messages."""
        others = {client.name for client in self.world.clients}  # which are another's own, to an operator
        for name in self._some([name for name in names_of(victim) if name not in others]):
            await (
                self.over_web({"session": name}, victim) if victim._web else self.over_socket(name, victim)
            )
        await self.over_http(victim)
        for cursor in (victim.cursors[0], victim.cursors[-1], victim.cursors[-1].upper()):
            await self.over_web({"after": cursor}, victim)
        for agent in (victim.session, f"main:{victim.session.split(':', 2)[2]}", "../main", "MAIN", "%6dain"):
            await self.over_web({"agent": agent}, victim)

    def _some(self, names: list[str]) -> list[str]:
        return self.world.dice.sample(names, min(FORMS, len(names)))

    async def over_web(self, hello: dict[str, Any], victim: Client) -> None:
        """Say this hello; where it is welcome, ask for everything that is the victim's."""
        self.tried += 1
        web = await WebClient.open(self.world.daemon.port, **hello)
        try:
            if (await web.receive())["type"] == "welcome":
                for frame in _questions(victim):
                    await web.send(**frame)
                await web.send(type="message", id="the-end", text="/status")
                await web.until("notice", id="the-end")
        except ConnectionClosed:
            pass
        await web.close()
        self.got += map(json.dumps, web.frames)

    async def over_socket(self, name: str, victim: Client) -> None:
        """The same for the Unix socket."""
        self.tried += 1
        async with Lines(self.world.daemon.socket) as lines:
            await lines.send("hello", protocol=1, session=name)
            first = await lines.next()
            if first and first["type"] == "welcome":
                for frame in _questions(victim)[:-1]:
                    await lines.send(**frame)
                await lines.send("message", id="the-end", text="/status")
                while (frame_ := await lines.next()) and frame_.get("id") != "the-end":
                    continue
        self.got += map(json.dumps, lines.frames)

    async def over_http(self, victim: Client) -> None:
        """Delete it, or have its file served."""
        for name in self._some(names_of(victim)):
            self.tried += 1
            status, body = await _request(
                self.world.daemon.port, "DELETE", "/api/session", json.dumps({"session": name})
            )
            assert status in (401, 404), f"{name!r} was deleted: {status}"
            self.got.append(body)
        file = ids.file_name(victim.session)
        for path in (
            f"/{file}", f"/sessions/{file}", f"/../sessions/{file}", f"/%2e%2e/data/sessions/{file}",
            f"/..%2fdata%2fsessions%2f{file}", f"//data/sessions/{file}", f"/api/session/{victim.session}",
            f"/api/session?session={victim.session}", f"/metrics?session={victim.session}",
            "/readyz", "/healthz", "/data/open.log", "/%2e%2e%2f%2e%2e%2fetc/passwd",
        ):  # fmt: skip
            self.tried += 1
            _, body = await _request(self.world.daemon.port, "GET", path)
            self.got.append(body)


def _questions(victim: Client) -> list[dict[str, Any]]:
    """What may only be asked in the victim's own session; the last one is for the web."""
    return [
        {"type": "history", "limit": 200},
        *({"type": "history", "limit": 200, "before": cursor} for cursor in victim.cursors[-2:]),
        {"type": "retry", "id": "try-1", "of": victim.said[0].id},
        {"type": "approve", "call_id": "c1", "allow": True},
        {"type": "stop"},
        {"type": "control", "id": "con-1", "verb": "sessions", "args": {"session": victim.session}},
    ]


async def _request(port: int, method: str, path: str, body: str = "") -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = body.encode("utf-8", "surrogatepass")
    head = f"{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    async with asyncio.timeout(20):
        answer = (await reader.read()).decode("utf-8", "replace")
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1]), answer


async def test_nobody_gets_at_anybody_elses_conversation(folder: Path) -> None:
    dice = random.Random(SEED)
    async with OpenAIServer() as openai, TelegramServer(TOKEN) as telegram:
        world = World(folder / "w", openai, telegram, dice, open_to_all=True)
        chatters, terminals = min(PEERS // 3, 10), PEERS // 3
        clients = [world.browser(f"web{n}") for n in range(PEERS - chatters - terminals)]
        clients += [world.terminal(f"term{n}") for n in range(terminals)]
        for number in range(chatters):
            world.chatter(f"tele{number}")
        try:
            await world.daemon.start()
            async with world.living():
                await _everybody_says(world, "hello")
                mallory = Mallory(world)
                for client in clients:
                    await mallory.attack(client)
                await _everybody_says(world, "please stamp")
            assert await world.daemon.stop() == 0
            invariants.check(world)
            _nobody_was_heard_elsewhere(world, mallory)
        except AssertionError as error:
            raise AssertionError(f"LUNAR_TEST_SEED={SEED}: {error}") from error
        finally:
            await world.daemon.close()
    assert not [entry for entry in world.daemon.log if entry["level"] in ("error", "critical")]
    figure("isolation", peers=len(world.everybody), tried=mallory.tried, crossed=0, seed=SEED)


async def _everybody_says(world: World, text: str) -> None:
    for someone in world.everybody:
        someone.say(f"{text} {someone.name}w{len(someone.said)}")
    for chatter in world.chatters:
        for other in world.dice.sample(world.everybody, 2):
            chatter.person.says(f"/status {other.session}")

    def over() -> bool:
        shown = [(chatter.shown(), chatter.said) for chatter in world.chatters]
        heard = all(set(WORD.findall(said.text)) <= set(seen) for seen, all_ in shown for said in all_)
        return heard and not any(client.owed() for client in world.clients)

    await world.until(over, "everybody's answers", 180)


def _nobody_was_heard_elsewhere(world: World, mallory: Mallory) -> None:
    """No word came to Mallory; none is in another's transcript, or in a prompt for another."""
    assert not WORD.findall("".join(mallory.got)), "Mallory got somebody's words"
    texts = [path.read_text("utf-8", "replace") for path in world.daemon.data_dir.rglob("*.jsonl*")]
    texts += [json.dumps(asked.body["messages"]) for asked in world.openai.requests]
    for text in texts:
        owners = {word.rpartition("w")[0] for word in WORD.findall(text)}
        assert len(owners) <= 1, f"together in one place: {owners}"
    outside = {path.name for path in world.folder.iterdir()} - {"data", "config.yaml", "stamp.py", "stamped"}
    assert not outside - {"__pycache__"}, f"files that nobody should make: {outside}"
