"""Ask, call tools, ask again: one turn as an async generator of events to store and updates to show."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal, Protocol

import structlog

from channels.base import Delta, ToolActivity
from gateway.agent import prompt, tools
from gateway.agent.model_errors import ContextTooLong, ModelError
from gateway.agent.reply import Finish, Text
from gateway.agent.tools import Outcome, Toolbox
from gateway.turn import Ask, TurnEvent, TurnUpdate
from session.events import Assistant, System, ToolCall, ToolResult, Usage
from session.window import Exchange

log = structlog.get_logger(__name__)

MAX_MODEL_CALLS = 16
MAX_TOOL_CALLS = 32
MAX_MISUSES = 2
MAX_SAME_CALL = 3

TOO_MANY_STEPS = "Sorry, this needed too many steps and was ended. Please ask for less at once."
IN_CIRCLES = "Sorry, I was going in circles and stopped. Please ask in other words."
NOTHING_SAID = {
    "length": "Sorry, the model used up its length before it had said anything. Please ask for less.",
    "filtered": "The AI model's provider held the answer back under its rules. Please ask differently.",
}
MISUSED = "Sorry, I could not use my tools properly and stopped. Please ask in other words."


class Answering(Protocol):
    """A model, as the runner sees it: `gateway.agent.model.Model`."""

    label: str

    def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> AsyncGenerator[Text | Finish]:
        """Stream one reply; raises `ModelError`."""


class ModelSource(Protocol):
    """Where the runner gets its model at the first need: `gateway.agent.models.Models`."""

    async def get(self, name: str) -> Answering:
        """The model of this configured name; raises `ModelError`."""


class _Enough(Exception):
    """The turn is over its bounds; the text is for the person."""


class AgentRunner:
    """One agent: its prompt, its model and its tools, shared by all sessions. Keeps nothing between turns."""

    def __init__(self, system_prompt: str, model: str, models: ModelSource, toolbox: Toolbox) -> None:
        self._system_prompt = system_prompt
        self._model = model
        self._models = models
        self._toolbox = toolbox

    async def run(self, ask: Ask) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        """Answer a turn; the last batch holds the closing event, whatever went wrong."""
        turn = _Turn(ask)
        try:
            model = await self._models.get(self._model)
            async with aclosing(self._rounds(turn, model)) as items:
                async for item in items:
                    yield item
        except ModelError as error:
            log.warning("the model did not answer", session=ask.session, turn=ask.turn, error=str(error))
            yield [turn.failed(error.public)]
        except _Enough as error:
            yield [turn.failed(str(error))]

    async def _rounds(self, turn: _Turn, model: Answering) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        schemas = self._toolbox.schemas()
        for _ in range(MAX_MODEL_CALLS):
            turn.said.clear()
            finish: Finish | None = None
            async with aclosing(self._ask(turn, model, schemas)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Text):
                        turn.said.append(piece.text)
                        yield Delta(turn.id, piece.text)
                    else:
                        finish = piece
            if finish is None:
                raise RuntimeError("the model's reply had no end")
            turn.count(finish)
            if finish.reason != "tool_calls":
                yield [turn.answer(finish)]
                return
            calls = turn.calls(finish)
            yield calls
            async with aclosing(self._tools(turn, calls)) as items:
                async for item in items:
                    yield item
        raise _Enough(TOO_MANY_STEPS)

    async def _ask(
        self, turn: _Turn, model: Answering, schemas: list[dict[str, Any]]
    ) -> AsyncGenerator[Text | Finish]:
        while True:
            try:
                async with aclosing(model.ask(turn.messages(self._system_prompt), schemas)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ContextTooLong:
                if not turn.shorten():
                    raise

    async def _tools(
        self, turn: _Turn, events: Sequence[TurnEvent]
    ) -> AsyncGenerator[list[TurnEvent] | TurnUpdate]:
        calls = [event for event in events if isinstance(event, ToolCall)]
        for call in calls:
            yield _activity(turn, call, "started")
        running = {asyncio.create_task(self._call(call)) for call in calls}
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

    async def _call(self, call: ToolCall) -> tuple[ToolCall, Outcome]:
        return call, await self._toolbox.call(call.name, call.args)


class _Turn:
    """What one turn has come to so far."""

    def __init__(self, ask: Ask) -> None:
        self.id = ask.turn
        self.said: list[str] = []
        self.misuses = 0
        self._history = ask.history
        self._current: Exchange = ask.current
        self._steps = list(ask.current.steps)
        self._called = Counter(_key(step) for step in self._steps if isinstance(step, ToolCall))
        self._used = Usage()
        self._shortened = False

    def messages(self, system_prompt: str) -> list[prompt.Message]:
        return prompt.messages(system_prompt, self._history, self._current, self._steps)

    def shorten(self) -> bool:
        """Forget the older half of the history, once; False where that cannot help."""
        if self._shortened or not self._history:
            return False
        self._shortened = True
        self._history = self._history[(len(self._history) + 1) // 2 :]
        return True

    def count(self, finish: Finish) -> None:
        if finish.usage:
            self._used = Usage(self._used.input + finish.usage.input, self._used.output + finish.usage.output)

    def answer(self, finish: Finish) -> TurnEvent:
        usage = self._used if self._used != Usage() else None
        said = "".join(self.said)
        if not said.strip() and finish.reason in NOTHING_SAID:
            return self.failed(NOTHING_SAID[finish.reason])
        return Assistant(content=said, finish=finish.reason, model=finish.model, usage=usage)

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
            batch.append(Assistant(content=said, finish="tool_calls", model=finish.model))
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
