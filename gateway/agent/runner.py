"""Ask, call tools, ask again: one turn as an async generator of events to store and updates to show."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Literal, Protocol

import structlog

from channels.base import Delta, ToolActivity
from gateway.agent import prompt, recap, tools
from gateway.agent.content_parts import NO_PARTS, Parts
from gateway.agent.fitting import Fitting, Gauge
from gateway.agent.model_errors import ContextTooLong, ModelError
from gateway.agent.reply import Asked, Finish, Text
from gateway.agent.tools import Outcome, Scope, Toolbox
from gateway.turn import Ask, ContextUse, Recap, Spending, TurnEvent, TurnUpdate
from session.events import Assistant, System, ToolCall, ToolResult, Usage, User
from session.ids import SessionId
from session.window import Exchange, Step

log = structlog.get_logger(__name__)

MAX_MODEL_CALLS = 16
MAX_TOOL_CALLS = 32
MAX_MISUSES = 2
MAX_SAME_CALL = 3
MAX_SUMMARIES = 2  # that are written at once: a server with little room is there for the turns

TOO_MANY_STEPS = "Sorry, this needed too many steps and was ended. Please ask for less at once."
IN_CIRCLES = "Sorry, I was going in circles and stopped. Please ask in other words."
NOT_ALLOWED = "The person did not allow this call. Do not try it again unless they ask for it."
NOTHING_SAID = {
    "length": "Sorry, the model used up its length before it had said anything. Please ask for less.",
    "filtered": "The AI model's provider held the answer back under its rules. Please ask differently.",
}
MISUSED = "Sorry, I could not use my tools properly and stopped. Please ask in other words."


class Answering(Protocol):
    """A model, as the runner sees it: `gateway.agent.chain.Chain`."""

    @property
    def label(self) -> str:
        """What people see."""

    @property
    def vision(self) -> bool:
        """Whether it is to be shown images and files."""

    @property
    def context(self) -> int | None:
        """How many tokens it takes, the reply included; None where that is not known."""

    def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> AsyncGenerator[Asked | Text | Finish]:
        """Stream one reply; raises `ModelError`."""


class ModelSource(Protocol):
    """Where the runner gets its model at the first need: `gateway.agent.chain.AgentModels`."""

    async def get(self, name: str | None, session: SessionId) -> Answering:
        """The model of this configured name, or else the agent's own, for a session; raises `ModelError`."""


class Seeing(Protocol):
    """Where the runner gets what came with messages: `gateway.agent.content_parts.ContentParts`."""

    async def of(self, session: SessionId, earlier: Iterable[User], current: Sequence[User]) -> Parts:
        """The content parts of messages; files of `current` ones are waited for."""


class _Enough(Exception):
    """The turn is over its bounds; the text is for the person."""


class AgentRunner:
    """One agent: its prompt, its model and its tools, shared by all sessions; keeps nothing of any."""

    def __init__(
        self,
        system_prompt: str,
        models: ModelSource,
        toolbox: Toolbox,
        seeing: Seeing | None = None,
    ) -> None:
        self._system_prompt = system_prompt
        self._models = models
        self._toolbox = toolbox
        self._seeing = seeing
        self._gauge = Gauge()
        self._summaries = asyncio.Semaphore(MAX_SUMMARIES)

    async def run(self, ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        """Answer a turn; the last batch holds the closing event, whatever went wrong."""
        turn = _Turn(ask)
        try:
            model = await self._models.get(ask.model, ask.session)
            async with aclosing(self._rounds(turn, model)) as items:
                async for item in items:
                    yield item
        except ModelError as error:
            log.warning("the model did not answer", session=ask.session, turn=ask.turn, error=str(error))
            yield [turn.failed(error.public)]
        except _Enough as error:
            yield [turn.failed(str(error))]

    def repeatable(self, call: ToolCall) -> bool:
        """Whether a call that a crash broke off may simply be made again."""
        return self._toolbox.repeatable(call.name)

    async def summarise(self, asked: Recap) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        """What it spends, then one `summary` event; raises `ModelError` or `recap.NoSummary`."""
        model = await self._models.get(asked.model, asked.session)
        room = self._gauge.room(model.label, model.context) if model.context else None
        async with self._summaries, aclosing(recap.written(model, asked, room)) as items:
            async for item in items:
                yield item

    async def _rounds(self, turn: _Turn, model: Answering) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        await self._toolbox.ready(turn.ask.session)
        schemas = self._toolbox.schemas()
        async with aclosing(
            self._tools(turn, [call for call in turn.broken_off if self.repeatable(call)])
        ) as items:
            async for item in items:
                yield item
        fitting = Fitting(
            lambda history: turn.messages(self._system_prompt, history),
            turn.ask.history,
            schemas,
            (model.label, model.context),
            self._gauge,
        )
        for _ in range(MAX_MODEL_CALLS):
            turn.said.clear()
            turn.take_in()
            if self._seeing and model.vision:
                await turn.look(self._seeing)
            finish: Finish | None = None
            async with aclosing(_ask(model, fitting, schemas)) as pieces:
                async for piece in pieces:
                    match piece:
                        case ContextUse():
                            yield piece
                        case Asked(usage):
                            yield Spending(turn.used + usage)
                        case Text(text):
                            turn.said.append(text)
                            yield Delta(turn.id, text)
                        case Finish():
                            finish = piece
            if finish is None:
                raise RuntimeError("the model's reply had no end")
            turn.count(finish)
            fitting.learn(finish)
            yield fitting.use
            yield Spending(turn.used)
            if finish.reason != "tool_calls":
                yield [turn.answer(finish)]
                return
            calls = turn.calls(finish)
            yield calls
            async with aclosing(self._tools(turn, calls)) as items:
                async for item in items:
                    yield item
        raise _Enough(TOO_MANY_STEPS)

    async def _tools(
        self, turn: _Turn, events: Sequence[TurnEvent]
    ) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        calls = [event for event in events if isinstance(event, ToolCall)]
        for call in calls:
            yield _activity(turn, call, "started")
        running = {asyncio.create_task(self._call(turn, call)) for call in calls}
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                finished = [task.result() for task in done]
                yield [turn.result(call, outcome) for call, outcome in finished]
                for call, outcome in finished:
                    yield _activity(turn, call, "finished" if outcome.ok else "failed")
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
        if turn.misuses > MAX_MISUSES:
            raise _Enough(MISUSED)

    async def _call(self, turn: _Turn, call: ToolCall) -> tuple[ToolCall, Outcome]:
        if self._toolbox.asks(call.name) and not await turn.ask.person.allows(call):
            return call, Outcome(False, NOT_ALLOWED)
        scope = Scope(turn.ask.session, turn.id, call.call_id or "")
        return call, await self._toolbox.call(call.name, call.args, scope)


async def _ask(
    model: Answering, fitting: Fitting, schemas: list[dict[str, Any]]
) -> AsyncGenerator[Asked | Text | Finish | ContextUse]:
    while True:
        try:
            async with aclosing(model.ask(fitting.messages(), schemas)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        except ContextTooLong:
            if not fitting.shorten():
                raise
            yield fitting.use


class _Turn:
    """What one turn has come to so far."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.id = ask.turn
        self.said: list[str] = []
        self._thoughts: list[str] = []  # not stored yet
        self.misuses = 0
        self._current: Exchange = ask.current
        self._steps: list[Step] = list(ask.current.steps)
        self._called = Counter(_key(step) for step in self._steps if isinstance(step, ToolCall))
        self.used = Usage()
        self._parts: Parts = NO_PARTS
        self._looked_at = 0  # how many of the turn's own messages

    def messages(self, system_prompt: str, history: list[Exchange]) -> list[prompt.Message]:
        return prompt.messages(
            system_prompt, history, self._current, self._steps, self._parts, self.ask.summary
        )

    async def look(self, seeing: Seeing) -> None:
        """Read what came with the messages, again where there are more of them."""
        mine = [*self._current.messages, *(step for step in self._steps if isinstance(step, User))]
        if len(mine) > self._looked_at:
            earlier = [message for past in self.ask.history for message in past.asked]
            self._parts = await seeing.of(self.ask.session, earlier, mine)
            self._looked_at = len(mine)

    def take_in(self) -> None:
        """Put before the model what came meanwhile."""
        self._steps += self.ask.person.more()

    @property
    def broken_off(self) -> list[ToolCall]:
        """Calls of an earlier attempt that have no result: those that may be made again."""
        done = {step.call_id for step in self._steps if isinstance(step, ToolResult)}
        return [step for step in self._steps if isinstance(step, ToolCall) and step.call_id not in done]

    def count(self, finish: Finish) -> None:
        if finish.usage:
            self.used += finish.usage
        if finish.reasoning:
            self._thoughts.append(finish.reasoning)

    def answer(self, finish: Finish) -> TurnEvent:
        said = "".join(self.said)
        if not said.strip() and finish.reason in NOTHING_SAID:
            return self.failed(NOTHING_SAID[finish.reason])
        return self._assistant(said, finish)

    def _assistant(self, said: str, finish: Finish) -> Assistant:
        thoughts, self._thoughts = "\n\n".join(self._thoughts), []
        return Assistant(content=said, finish=finish.reason, model=finish.model, reasoning=thoughts or None)

    def failed(self, public: str) -> TurnEvent:
        return System(name="turn_failed", content=public)

    def calls(self, finish: Finish) -> list[TurnEvent]:
        """The round's events: what was said on the way, and each call; raises `_Enough`."""
        new = [
            ToolCall(name=call.name, args=tools.parse(call.arguments), call_id=f"c{secrets.token_hex(6)}")
            for call in finish.calls
        ]
        self._called.update(map(_key, new))
        if self._called.total() > MAX_TOOL_CALLS:
            raise _Enough(TOO_MANY_STEPS)
        if any(self._called[_key(call)] >= MAX_SAME_CALL for call in new):
            raise _Enough(IN_CIRCLES)
        said = "".join(self.said)
        batch: list[Assistant | ToolCall] = []
        if said:
            batch.append(self._assistant(said, finish))
        batch += new
        self._steps += batch
        return list(batch)

    def result(self, call: ToolCall, outcome: Outcome) -> TurnEvent:
        self.misuses += outcome.misused
        result = ToolResult(name=call.name, result=outcome.text, call_id=call.call_id, ok=outcome.ok)
        self._steps.append(result)
        return result


def _key(call: ToolCall) -> str:
    return f"{call.name} {json.dumps(call.args, sort_keys=True)}"


def _activity(turn: _Turn, call: ToolCall, state: Literal["started", "finished", "failed"]) -> ToolActivity:
    return ToolActivity(turn.id, call.call_id or "", call.name, state)
