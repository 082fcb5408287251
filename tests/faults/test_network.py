"""The network between every pair: late, cut, reset, half-open, out of order, a byte at a time, without names.

A failed run says its seed; LUNAR_TEST_SEED repeats it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ndjson import Client as Lines
from tests.fakes.openai_server import (
    BadJson,
    Behaviour,
    ChoicesNull,
    CutAfter,
    EmptyReply,
    EndAfter,
    ErrorInStream,
    Html200,
    HtmlInStream,
    NoFinish,
    OpenAIServer,
    Reset,
    Status,
)
from tests.fakes.proxy import Proxy
from tests.fakes.telegram_faults import Fault
from tests.fakes.telegram_server import (
    AnswerLost,
    Garbage,
    Html,
    Refuse,
    Slow,
    TelegramServer,
    TooMany,
    Truncated,
    conflict,
)
from tests.fakes.telegram_server import Reset as TelegramReset
from tests.fakes.webclient import WebClient
from tests.faults import invariants
from tests.faults.figures import TORTURE, figure
from tests.faults.mounts import Mounts
from tests.faults.people import WORD, Chatter, Client
from tests.faults.world import TOKEN, World, reply

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
ROUNDS = 300 if TORTURE else 16
TABLES = 30 if TORTURE else 1
DEAF = 35.0  # seconds, at most
OUTAGE = 60.0
long_form = pytest.mark.skipif(not TORTURE, reason="the long form: make torture")


class Network:
    """A daemon to which, and from which, everything goes through a proxy. The people are three."""

    def __init__(self, world: World, proxies: dict[str, Proxy]) -> None:
        self.world = world
        self.proxies = proxies
        self.term, self.web = world.terminal("term0"), world.browser("web0")
        self.tele = world.chatter("tele0")

    async def start(self, **env: str) -> None:
        daemon = self.world.daemon
        await daemon.start(**env)
        self.port = daemon.port  # the daemon's own
        self.proxies["web"].target, daemon.port = daemon.port, self.proxies["web"].port
        self.proxies["term"].target, daemon.socket = daemon.socket, self.world.folder / "proxy.sock"

    def say(self, someone: Client | Chatter, text: str = "hello") -> None:
        someone.say(f"{text} {someone.name}w{len(someone.said)}")

    def missing(self) -> list[str]:
        """What somebody still waits for."""
        owed = [id for client in self.world.clients for id in client.owed()]
        for chatter in self.world.chatters:
            shown = chatter.shown()
            owed += [w for said in chatter.said for w in WORD.findall(said.text) if w not in shown]
        return owed

    async def content(self, seconds: float = 60.0) -> None:
        await self.world.until(lambda: not self.missing(), "everybody's answers", seconds)

    def harm(self, dice: random.Random) -> str:
        """Let something happen to one of the pairs."""
        pair = dice.choice(sorted(self.proxies))
        proxy = self.proxies[pair]
        fault = dice.choice(["late", "slow", "refused"] + ["cut", "reset", "disorder"] * (pair != "model"))
        match fault:
            case "late":
                proxy.delay = dice.uniform(0.01, 0.3)
            case "slow":
                proxy.pace = 0.001
            case "refused":
                proxy.refusing = True
            case "cut":
                proxy.cut()
            case "reset":
                proxy.reset()
            case "disorder":
                proxy.open.clear()
                proxy.cut()
        return f"{pair} {fault}"


@asynccontextmanager
async def network(
    folder: Path, mounts: Mounts | None = None, name: str = "127.0.0.1"
) -> AsyncIterator[Network]:
    """A daemon, not started; `name` is what it calls the machine of Telegram. In the end all is checked."""
    async with AsyncExitStack() as stack:
        openai = await stack.enter_async_context(OpenAIServer())
        telegram = await stack.enter_async_context(TelegramServer(TOKEN))
        folder = folder / "w"
        folder.mkdir()
        proxies = {
            "model": await stack.enter_async_context(Proxy(openai.port)),
            "telegram": await stack.enter_async_context(Proxy(telegram.port)),
            "web": await stack.enter_async_context(Proxy(0)),
            "term": await stack.enter_async_context(Proxy(0, folder / "proxy.sock")),
        }
        openai.base_url = f"http://127.0.0.1:{proxies['model'].port}/v1"
        telegram.api_url = f"http://{name}:{proxies['telegram'].port}"
        world = World(folder, openai, telegram, random.Random(SEED), open_to_all=True)
        world.daemon.within = mounts.within if mounts else []
        net = Network(world, proxies)
        try:
            yield net
            assert await world.daemon.stop() == 0
            invariants.check(world)
        except AssertionError as error:
            told = f"{error} {net.missing()[:10]} {world.daemon.log[-10:]} {world.daemon.noise[-10:]}"
            raise AssertionError(f"LUNAR_TEST_SEED={SEED}: {told}") from error
        finally:
            await world.daemon.close()


async def test_every_pair_has_a_bad_network(folder: Path) -> None:
    dice = random.Random(SEED)
    async with network(folder) as net:
        await net.start()
        happened = []
        async with net.world.living():
            for number in range(ROUNDS):
                net.say([net.term, net.web, net.tele][number % 3], dice.choice(["hello", "please stamp"]))
                happened.append(net.harm(dice))
                await asyncio.sleep(dice.uniform(0.05, 0.5))
                if dice.random() < 0.7:
                    for proxy in net.proxies.values():
                        proxy.heal()
            for proxy in net.proxies.values():
                proxy.heal()
            await net.content(60 + ROUNDS)  # Telegram takes one message a second for a chat
        figure("network", faults=len(happened), messages=len(happened), seed=SEED)


async def test_a_connection_that_was_given_up_comes_through_after_the_next_one(folder: Path) -> None:
    async with network(folder) as net:
        await net.start()
        proxy, daemon = net.proxies["term"], net.world.daemon
        proxy.open.clear()
        async with Lines(daemon.socket) as early, Lines(daemon.data_dir / "lunar.sock") as late:
            await early.send("hello", protocol=1, session="swapped")
            await early.send("message", id="m1", text="hello the first")
            await late.hello("swapped")
            await late.ask("hello the first", "m1")
            await late.ask("hello the second", "m2")
            proxy.open.set()
            await early.until("ack", id="m1")
            await late.ask("hello the third", "m3")
        said = [event["id"] for event in daemon.events("agent:main:cli:swapped") if event["role"] == "user"]
        assert said == ["m1", "m2", "m3"]
        asked = [asked.body["messages"][-1]["content"] for asked in net.world.openai.requests]
        questions = [text for text in asked if "The summary:" not in text]  # one may be written meanwhile
        assert questions == ["hello the first", "hello the second", "hello the third"]


MODEL: list[Behaviour] = [
    Status(500),
    Status(503, headers={"Retry-After": "1"}),
    Status(429, headers={"Retry-After": "1"}),
    Status(408),
    Reset(),
    Html200(),
    HtmlInStream(0),
    CutAfter(0),
    CutAfter(1),
    EndAfter(0),
    BadJson(0),
    ErrorInStream(0),
    ChoicesNull(),
    NoFinish(),
    EmptyReply(),
]
TELEGRAM: dict[str, list[Fault]] = {
    "getUpdates": [TelegramReset(), Html(502), Garbage(), Truncated(), conflict(), AnswerLost()],
    "sendMessage": [
        AnswerLost(),
        TelegramReset(),
        Html(504, commit=True),
        TooMany(1),
        Slow(0.5),
        Truncated(),
    ],
    "editMessageText": [
        AnswerLost(reset=True),
        TooMany(1),
        Truncated(),
        Refuse(500, "Internal Server Error"),
        Html(502),
    ],
}


async def test_the_tables_of_faults_while_people_talk(folder: Path) -> None:
    """Each question meets a fault of the model's side, each person in Telegram one of every call's."""
    dice = random.Random(SEED)
    async with network(folder) as net:
        faults, asked = [*MODEL], set[str]()

        def faulty(body: dict[str, Any]) -> Behaviour:
            key = repr(body["messages"])
            if key in asked:
                return reply(body)
            asked.add(key)
            faults.append(faults.pop(0))
            return faults[-1]

        net.world.openai.reply = faulty
        await net.start()
        people = [*net.world.everybody, *(net.world.terminal(f"term{n}") for n in range(1, len(MODEL) - 2))]
        async with net.world.living():
            for number in range(TABLES):
                for method, kinds in TELEGRAM.items():
                    net.world.telegram.fail(
                        method, kinds[number % len(kinds)] if TORTURE else dice.choice(kinds)
                    )
                for someone in people:
                    net.say(someone)
                await net.content()
        assert len(asked) >= len(MODEL) * TABLES


async def test_names_that_cannot_be_resolved(folder: Path) -> None:
    """Telegram's name is unknown at the start, and again while the bot is running."""
    hosts, nowhere = folder / "hosts", folder / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    nowhere.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")  # nobody listens there
    async with Mounts() as mounts, network(folder, mounts, "bot.lunar.test") as net:
        await mounts.run("mount", "--bind", hosts, "/etc/hosts")
        await mounts.run("mount", "--bind", nowhere, "/etc/resolv.conf")
        await net.start()
        for fault in ("unknown at the start", "not to be resolved any more"):
            hosts.write_text("127.0.0.1 localhost\n")
            before = len(net.world.daemon.log) if fault != "unknown at the start" else 0
            net.proxies["telegram"].reset()
            await net.world.daemon.logged("no contact to Telegram", since=before)
            await asyncio.sleep(OUTAGE if TORTURE else 0)
            net.say(net.tele)
            hosts.write_text("127.0.0.1 localhost bot.lunar.test\n")
            await _heard(net, f"the name is {fault}")
            await net.content()


# -- the long form ---------------------------------------------------------------------------------


async def _heard(net: Network, fault: str, since: float | None = None) -> None:
    """Wait until what was said in Telegram is stored; tells how long that took."""
    since = since or time.monotonic()

    def stored() -> bool:
        if not net.world.daemon.path(net.tele.session).exists():
            return False
        raw = net.world.daemon.raw(net.tele.session)
        return all(f'"{said.id}"'.encode() in raw for said in net.tele.said)

    await net.world.until(stored, "what was said in Telegram", 90)
    deaf = time.monotonic() - since
    figure("deaf", pair="telegram", fault=fault, seconds=round(deaf, 1))
    assert deaf <= DEAF, f"deaf for {deaf:.1f} s after: {fault}"


def _lasting(proxy: Proxy) -> dict[str, Callable[[], None]]:
    """What lasts until it is healed."""

    def refused() -> None:
        proxy.refusing = True
        proxy.reset()

    def swallowed() -> None:
        proxy.swallowing = True
        proxy.half_open()

    def trickling() -> None:
        proxy.pace = 1.0

    def late() -> None:
        proxy.delay = 20.0

    return {"refused": refused, "swallowed": swallowed, "a byte a second": trickling, "20 s late": late}


@long_form
@pytest.mark.parametrize("fault", ["refused", "swallowed", "a byte a second", "20 s late"])
async def test_telegram_is_heard_again_after_an_outage(folder: Path, fault: str) -> None:
    async with network(folder) as net:
        await net.start()
        net.say(net.tele)
        await net.content()
        _lasting(net.proxies["telegram"])[fault]()
        net.say(net.tele)
        await asyncio.sleep(OUTAGE)
        net.proxies["telegram"].heal()
        await _heard(net, f"{OUTAGE:g} s {fault}")
        await net.content()


@long_form
@pytest.mark.parametrize("fault", ["cut", "reset", "half_open"])
async def test_telegram_is_heard_after_it_lost_its_connections(folder: Path, fault: str) -> None:
    async with network(folder) as net:
        await net.start()
        net.say(net.tele)
        await net.content()
        await net.world.telegram.until(lambda: net.world.telegram.updates.is_polled)
        getattr(net.proxies["telegram"], fault)()
        net.say(net.tele)
        await _heard(net, fault)
        await net.content(180)


@long_form
async def test_a_half_open_browser_is_let_go_of(folder: Path) -> None:
    async with network(folder) as net:
        await net.start()
        browser = await WebClient.open(net.proxies["web"].port)
        await browser.until("welcome")
        net.proxies["web"].half_open()
        seconds = await _timed(_until_alone(net))
        browser.cut()
        figure("half-open", pair="web", closed_after=seconds)
        assert seconds <= DEAF


@long_form
async def test_a_model_that_falls_silent_costs_its_turn_alone(folder: Path) -> None:
    async with network(folder) as net:
        await net.start()
        async with net.world.living():
            net.say(net.term, "slow")
            await net.world.openai.until(lambda server: bool(server.requests), 20)
            net.proxies["model"].half_open()
            net.say(net.web)
            others = await _timed(net.world.until(lambda: not net.web.owed(), "the browser's answer", 20))
            seconds = await _timed(net.content(180))
        figure("half-open", pair="model", others_answered=others, answered=seconds)


async def _until_alone(net: Network) -> None:
    """Wait until the daemon has no web client any more."""
    async with Lines(net.world.daemon.data_dir / "lunar.sock") as operator:
        await operator.hello()
        for number in range(1000):
            await operator.send("control", id=f"c{number}", verb="status", args={})
            result = await operator.until("result", id=f"c{number}")
            if not result["data"]["connections"]["http"]:
                return
            await asyncio.sleep(0.2)
    raise AssertionError("the browser is still there")


async def _timed(work: Awaitable[object]) -> float:
    began = time.monotonic()
    await work
    return round(time.monotonic() - began, 1)
