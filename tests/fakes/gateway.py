"""Store, router and Unix socket around a runner of the test's own, in this process."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

from channels.base import Delta, Done, Stored, Update
from channels.cli.server import CliChannel
from channels.connection import House
from gateway.about import About, Sources
from gateway.config import Budget
from gateway.control import Controls
from gateway.disk import Disk
from gateway.health import Health
from gateway.lane import Lane
from gateway.ledger import Ledger
from gateway.nodes import Nodes
from gateway.router import Agent, Router
from gateway.rules import Mode, Rules
from gateway.turn import Ask, Recap, Spending, TurnEvent, TurnUpdate
from session.events import Assistant, Event, System, ToolCall, ToolResult, Usage
from session.ids import AgentId, Peer, PeerId, Provider, SessionId
from session.protocols import TranscriptStore
from session.store import Store
from tests.fakes import kept
from tests.fakes.ndjson import TIMEOUT, Client


def asked(ask: Ask) -> str:
    """What the person said in this turn."""
    return " + ".join(message.content for message in ask.current.messages)


async def echo(ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
    yield Delta(ask.turn, f"echo: {asked(ask)}")
    yield [Assistant(content=f"echo: {asked(ask)}", finish="stop")]


async def summed_up(recap: Recap) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
    new = " + ".join(message.content for exchange in recap.exchanges for message in exchange.asked)
    used = Usage(100, 10)
    yield Spending(used)
    yield [System(name="summary", content=f"{recap.previous or ''}({new})", model="scripted", usage=used)]


class ScriptedRunner:
    """A `lane.Runner` that does what `reply` says, and remembers what it was asked."""

    def __init__(self, reply: Callable[[Ask], Any] = echo) -> None:
        self.reply = reply
        self.sum_up: Callable[[Recap], Any] = summed_up
        self.recaps: list[Recap] = []
        self.asked: list[Ask] = []
        self.closed = 0  # runs that ended, however
        self.repeats = False  # whether a call that a crash broke off may be made again

    async def run(self, ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        self.asked.append(ask)
        try:
            async with aclosing(self.reply(ask)) as items:
                async for item in items:
                    yield item
        finally:
            self.closed += 1

    def repeatable(self, call: ToolCall) -> bool:
        return self.repeats

    async def summarise(self, recap: Recap) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        self.recaps.append(recap)
        async with aclosing(self.sum_up(recap)) as items:
            async for item in items:
                yield item


class _Models:
    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self.remarks: dict[str, str] = {}
        self.states = {"cli": "ready"}
        self.connections = {"cli": 0}
        self.labels = {"default": "scripted", "other": "another"}

    def __contains__(self, name: str) -> bool:
        return name in self.labels

    def label(self, name: str | None = None) -> str:
        return self.labels.get(name or "default", "scripted")

    told = label

    def choices(self, *, every: bool) -> dict[str, str]:
        return self.labels if every else {"default": "scripted"}

    def is_demo(self, name: str) -> bool:
        return False


class Gateway:
    """What the daemon wires together, without its process, its signals and its models."""

    def __init__(
        self,
        folder: Path,
        runner: ScriptedRunner | None = None,
        *,
        running: int = 64,
        mode: Mode = "collect",
        summaries: bool = True,
        store: Store | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        budget: Budget = Budget(),  # noqa: B008 - immutable
    ) -> None:
        self.runner = runner or ScriptedRunner()
        shared = None if store else kept.shared_store(folder)
        self.store: TranscriptStore = store or shared or Store(folder)
        self.socket = folder / "lunar.sock"
        self.now = 0.0  # the router's clock
        self.slots = asyncio.Semaphore(running)
        self.ledger = Ledger(self.store)
        self.ledger.limit({"main": budget})

        def lane(session: SessionId) -> Lane:
            account = self.ledger.account(session)
            rules = Rules(mode=mode, summaries=summaries, push=":telegram:" in session)
            return Lane(session, self.store, self.runner, self.slots, rules, sleep, account, shared)

        models = _Models()
        agent = Agent(AgentId("main"), models, lane)
        self.channel_faults = _Models()
        self.health = Health(self.store, self.channel_faults, models)
        about = About("0", {"main": "default"}, models, self.health, "a demo")
        about.sources = Sources(
            Disk(folder, shared and shared.listing), self.channel_faults, self.ledger, lambda name: 8000
        )
        self.router = Router(self.store, {"main": agent}, about.session, clock=lambda: self.now)
        self.nodes = Nodes(shared, self.router, self.ledger) if shared else None
        self.health.nodes = about.nodes = self.nodes
        self.controls = Controls(self.router, about)
        self.house = House(self.router, self.controls)
        self.channel = CliChannel(self.socket, self.house)
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[Client] = []

    async def __aenter__(self) -> Self:
        await self.store.open()
        self.channel.bind()
        ready = asyncio.Event()
        self._tasks.append(asyncio.create_task(self.channel.run(ready.set)))
        if self.nodes:
            self._tasks.append(asyncio.create_task(self.nodes.run()))
        await ready.wait()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in self._clients:
            await client.close()
        await self.router.drain(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if self.nodes:
            self.nodes.close()
        await self.store.close()

    async def connect(self) -> Client:
        client = await Client(self.socket).connect()
        self._clients.append(client)
        return client

    async def client(self, session: str = "local", **hello: Any) -> Client:
        client = await self.connect()
        await client.hello(session, **hello)
        return client

    async def lane(self, session: str = "local") -> Lane:
        return await self.router.lane(SessionId(f"agent:main:cli:{session}"))

    async def quiet(self) -> None:
        """Wait until no turn runs and nothing waits."""
        async with asyncio.timeout(TIMEOUT):
            while not all(lane.idle or lane.held for lane in self.router.lanes):  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0.001)

    def lines(self, session: str = "local") -> list[bytes]:
        """The transcript's lines."""
        return kept.of(self.store.data_dir).raw(f"agent:main:cli:{session}").splitlines()


def cli(name: str = "local") -> Peer:
    return Peer(Provider("cli"), PeerId(name))


class Watcher:
    """Everything that a feed tells, from now on."""

    def __init__(self, lane: Lane) -> None:
        self.updates: list[Update] = []
        self._news = asyncio.Event()
        self.watch = lane.feed.watch(self._take, lane.conversation.cursor)

    def _take(self, update: Update) -> None:
        self.updates.append(update)
        self._news.set()

    async def until(self, wanted: Callable[[Update], bool], count: int = 1) -> Update:
        """The `count`-th update that is wanted, perhaps told already."""
        async with asyncio.timeout(TIMEOUT):
            while len(found := [update for update in self.updates if wanted(update)]) < count:
                self._news.clear()
                await self._news.wait()
        return found[count - 1]

    async def done(self, count: int = 1) -> Done:
        """The end of the `count`-th turn."""
        done = await self.until(lambda update: isinstance(update, Done), count)
        assert isinstance(done, Done)
        return done

    @property
    def events(self) -> list[Event]:
        return [update.record.event for update in self.updates if isinstance(update, Stored)]


class Gate:
    """A runner's reply that says a beginning, waits, and then goes on."""

    def __init__(self, beginning: str = "A beginning") -> None:
        self.beginning = beginning
        self.open = asyncio.Event()
        self.entered = asyncio.Event()

    async def __call__(self, ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        if self.beginning:
            yield Delta(ask.turn, self.beginning)
        self.entered.set()
        await self.open.wait()
        yield [Assistant(content=f"{self.beginning}, then: {asked(ask)}", finish="stop")]


class Tools:
    """A runner's reply: calls tools that all ask first, as the agent's runner does, and then answers."""

    def __init__(self, *calls: str) -> None:
        self.calls = calls
        self.ran: list[str] = []
        self.finish = asyncio.Event()  # cleared by a test: a tool that was allowed goes on working
        self.finish.set()

    async def __call__(self, ask: Ask) -> AsyncGenerator[Any]:
        calls = [ToolCall(name="delete", args={"path": call}, call_id=call) for call in self.calls]
        done = {step.call_id for step in ask.current.steps if isinstance(step, ToolResult)}
        if not ask.current.steps:
            yield calls
        running = {asyncio.create_task(self._run(ask, call)) for call in calls if call.call_id not in done}
        try:
            while running:
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                yield [task.result() for task in finished]
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
        async with aclosing(echo(ask)) as items:
            async for item in items:
                yield item

    async def _run(self, ask: Ask, call: ToolCall) -> ToolResult:
        allowed = await ask.person.allows(call)
        if allowed:
            self.ran.append(call.call_id or "")
            await self.finish.wait()
        return ToolResult(name="delete", result="done", call_id=call.call_id, ok=allowed)
