"""Ask, call tools, ask again: with a model that plays a script."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from channels.base import Delta, ToolActivity
from gateway.agent.content_parts import Parts
from gateway.agent.model_errors import BadRequest, ContextTooLong, ModelError, ModelUnreachable
from gateway.agent.reply import Asked, Call, Finish, Text
from gateway.agent.runner import (
    IN_CIRCLES,
    MAX_MODEL_CALLS,
    MAX_SUMMARIES,
    MAX_TOOL_CALLS,
    MISUSED,
    NOTHING_SAID,
    TOO_MANY_STEPS,
    AgentRunner,
)
from gateway.agent.tools import Tool, Toolbox
from gateway.turn import Ask, ContextUse, Recap, Spending
from session.events import Assistant, System, ToolCall, ToolResult, Usage, User
from session.ids import SessionId
from session.window import Exchange

Piece = Asked | Text | Finish | Exception | asyncio.Event


class Model:
    """Answers the n-th question with the n-th part of its script, the last one again and again."""

    label = "scripted"
    vision = False
    context: int | None = None

    def __init__(self, *script: Sequence[Piece]) -> None:
        self.script = list(script)
        self.asked: list[list[dict[str, Any]]] = []
        self.schemas: list[dict[str, Any]] = []
        self.closed = 0
        self.waiting = asyncio.Event()  # set when it has come to a place where it waits

    async def get(self, name: str | None, session: SessionId) -> "Model":
        return self

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> AsyncGenerator[Asked | Text | Finish]:
        self.asked.append(messages)
        self.schemas = tools
        part = self.script[min(len(self.asked), len(self.script)) - 1]
        try:
            for piece in part:
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, asyncio.Event):
                    self.waiting.set()
                    await piece.wait()
                else:
                    yield piece
        finally:
            self.closed += 1


def stop(reason: Any = "stop") -> Finish:
    return Finish(reason, (), "served-1", Usage(10, 5))


def calls(*wanted: tuple[str, str]) -> Finish:
    made = tuple(
        Call(name, arguments, f"provider-{number}") for number, (name, arguments) in enumerate(wanted)
    )
    return Finish("tool_calls", made, "served-1", Usage(10, 5))


def question(text: str = "Hello", history: int = 0, steps: list[Any] | None = None) -> Ask:
    past = []
    for number in range(history):
        exchange = Exchange(f"p{number}", [User(content=f"old {number}")])
        exchange.steps.append(Assistant(content=f"answer {number}"))
        past.append(exchange)
    current = Exchange("t1", [User(content=text, id="m1")])
    current.steps += steps or []
    return Ask(SessionId("agent:main:cli:local"), "t1", past, current)


async def echo(text: str = "") -> str:
    return f"echoed {text}"


def runner(model: Model, *tools: Tool) -> AgentRunner:
    known = tools or (Tool("echo", "", {"type": "object"}, echo),)
    return AgentRunner("Be kind.", model, Toolbox(known))


async def play(model: Model, *tools: Tool, ask: Ask | None = None) -> tuple[list[Any], list[Any]]:
    """All events that are stored, and all updates that are shown."""
    stored: list[Any] = []
    shown: list[Any] = []
    async for item in runner(model, *tools).run(ask or question()):
        if isinstance(item, list):
            stored += item
        else:
            shown.append(item)
    return stored, [update for update in shown if isinstance(update, Delta | ToolActivity)]


async def told(items: AsyncGenerator[Any]) -> Any:
    """The next thing that is stored or shown."""
    while isinstance(item := await anext(items), Spending | ContextUse):
        pass
    return item


async def spent(model: Model, *tools: Tool) -> list[Usage]:
    """What was said of the turn's usage, in order."""
    return [item.used async for item in runner(model, *tools).run(question()) if isinstance(item, Spending)]


async def test_an_answer() -> None:
    model = Model([Text("Hel"), Text("lo!"), stop()])
    stored, shown = await play(model, ask=question("Hello", history=1))
    assert stored == [Assistant(content="Hello!", finish="stop", model="served-1")]
    assert shown == [Delta("t1", "Hel"), Delta("t1", "lo!")]
    assert [message["content"] for message in model.asked[0]] == ["Be kind.", "old 0", "answer 0", "Hello"]
    assert model.schemas[0]["function"]["name"] == "echo"
    assert model.closed == 1


async def test_what_is_spent_is_told_as_it_grows() -> None:
    """The estimate of a call under way stands until its end is heard; the calls of a turn add up."""
    estimate = Usage(input=8, estimated=True)
    model = Model([Asked(estimate), calls(("echo", "{}"))], [Asked(estimate), Text("Done"), stop()])
    assert await spent(model) == [estimate, Usage(10, 5), Usage(10, 5) + estimate, Usage(20, 10)]


@pytest.mark.parametrize("reason", ["length", "filtered", "cut"])
async def test_an_answer_that_is_not_whole(reason: str) -> None:
    stored, _ = await play(Model([Text("Half"), stop(reason)]))
    assert (stored[0].content, stored[0].finish) == ("Half", reason)


@pytest.mark.parametrize("reason", ["length", "filtered"])
async def test_an_end_before_anything_was_said(reason: str) -> None:
    stored, _ = await play(Model([Text("  "), stop(reason)]))
    assert stored == [System(name="turn_failed", content=NOTHING_SAID[reason])]


@pytest.mark.parametrize(
    "error", [ModelUnreachable("no route to 10.0.0.1"), BadRequest("nope", public="Own words.")]
)
async def test_a_model_that_does_not_answer(error: ModelError) -> None:
    stored, shown = await play(Model([error]))
    assert stored == [System(name="turn_failed", content=error.public)]
    assert "10.0.0.1" not in str(stored)
    assert not shown


async def test_a_model_that_cannot_be_had() -> None:
    class Nowhere(Model):
        async def get(self, name: str | None, session: SessionId) -> Model:
            raise ModelUnreachable("not there")

    stored, _ = await play(Nowhere())
    assert stored[0].name == "turn_failed"


async def test_tools_are_called_and_their_results_are_told() -> None:
    model = Model(
        [Text("Let me see. "), calls(("echo", '{"text": "a"}'), ("echo", ""))], [Text("Done."), stop()]
    )
    stored, shown = await play(model)
    said, first, second, *results, answer = stored
    assert said == Assistant(content="Let me see. ", finish="tool_calls", model="served-1")
    assert (first.args, second.args) == ({"text": "a"}, {})
    assert first.call_id != second.call_id
    assert {(result.call_id, result.result, result.ok) for result in results} == {
        (first.call_id, "echoed a", True),
        (second.call_id, "echoed ", True),
    }
    assert answer.content == "Done."
    states = [(update.call_id, update.state) for update in shown if isinstance(update, ToolActivity)]
    assert states[:2] == [(first.call_id, "started"), (second.call_id, "started")]
    assert {state for _, state in states[2:]} == {"finished"}
    *_, asked, told_a, told_b = model.asked[1]
    assert [call["id"] for call in asked["tool_calls"]] == [told_a["tool_call_id"], told_b["tool_call_id"]]
    assert [told_a["content"], told_b["content"]] == ["echoed a", "echoed "]


async def test_calls_are_stored_before_they_are_run() -> None:
    ran: list[str] = []

    def run() -> str:
        ran.append("x")
        return ""

    items = runner(Model([calls(("x", "{}"))], [Text("Done"), stop()]), Tool("x", "", {}, run)).run(
        question()
    )
    first = await told(items)
    assert isinstance(first[0], ToolCall)
    assert not ran
    await items.aclose()
    assert not ran


async def test_tools_run_side_by_side_and_each_result_is_stored_as_it_comes() -> None:
    """The first can only end when the second one's result is stored."""
    let_go = asyncio.Event()

    async def slow() -> str:
        await let_go.wait()
        return "slow"

    async def quick() -> str:
        return "quick"

    tools = [Tool("slow", "", {}, slow), Tool("quick", "", {}, quick)]
    model = Model([calls(("slow", "{}"), ("quick", "{}"))], [Text("Done"), stop()])
    results = []
    async with asyncio.timeout(10):
        async for item in runner(model, *tools).run(question()):
            for event in item if isinstance(item, list) else ():
                if isinstance(event, ToolResult):
                    results.append(event.name)
                    let_go.set()
    assert results == ["quick", "slow"]


@pytest.mark.parametrize(
    "bad", [("echo", '{"text": "%d'), ("echo", '{"other": %d}'), ("nothing", '{"n": %d}'), ("echo", "[%d]")]
)
async def test_a_misuse_is_told_twice_and_then_it_is_over(bad: tuple[str, str]) -> None:
    name, arguments = bad
    # Each time another one: the same call three times is another rule.
    misuses = [[calls((name, arguments % number))] for number in range(9)]
    model = Model(*misuses)
    stored, _ = await play(model)
    results = [event for event in stored if isinstance(event, ToolResult)]
    assert [result.ok for result in results] == [False] * 3
    assert stored[-1].content == MISUSED
    assert len(model.asked) == 3
    assert all(message["role"] != "tool" or message["content"] for message in model.asked[2])


async def test_a_model_that_learns_from_its_mistakes_goes_on() -> None:
    model = Model(
        [calls(("echo", "{"))], [calls(("nothing", "{}"))], [calls(("echo", "{}"))], [Text("Done"), stop()]
    )
    stored, _ = await play(model)
    assert stored[-1].content == "Done"
    assert [event.ok for event in stored if isinstance(event, ToolResult)] == [False, False, True]


async def test_the_same_call_three_times_ends_the_turn() -> None:
    model = Model([calls(("echo", '{"text": "a"}'))])
    stored, _ = await play(model)
    assert stored[-1] == System(name="turn_failed", content=IN_CIRCLES)
    assert sum(isinstance(event, ToolCall) for event in stored) == 2


async def test_calls_of_an_earlier_attempt_count() -> None:
    before = [
        event
        for number in range(2)
        for event in (
            ToolCall(name="echo", args={"text": "a"}, call_id=f"c{number}"),
            ToolResult(name="echo", result="a", call_id=f"c{number}", ok=True),
        )
    ]
    stored, _ = await play(Model([calls(("echo", '{"text": "a"}'))]), ask=question(steps=before))
    assert stored == [System(name="turn_failed", content=IN_CIRCLES)]


def _distinct(count: int) -> Callable[[int], Finish]:
    return lambda round_: calls(*[("echo", f'{{"text": "{round_}-{number}"}}') for number in range(count)])


async def test_a_turn_has_sixteen_questions() -> None:
    one = _distinct(1)
    model = Model(*[[one(number)] for number in range(40)])
    stored, _ = await play(model)
    assert len(model.asked) == MAX_MODEL_CALLS
    assert stored[-1].content == TOO_MANY_STEPS
    assert sum(isinstance(event, ToolResult) for event in stored) == MAX_MODEL_CALLS


async def test_a_turn_has_thirty_two_calls() -> None:
    eleven = _distinct(11)
    stored, _ = await play(Model(*[[eleven(number)] for number in range(9)]))
    assert stored[-1].content == TOO_MANY_STEPS
    made = [str(event.call_id) for event in stored if isinstance(event, ToolCall)]
    assert len(made) == 22 <= MAX_TOOL_CALLS
    assert sorted(made) == sorted(str(event.call_id) for event in stored if isinstance(event, ToolResult))


async def test_a_conversation_that_is_too_long_is_shortened_once() -> None:
    model = Model([ContextTooLong("too long")], [Text("Fits"), stop()])
    stored, _ = await play(model, ask=question(history=5))
    assert stored[-1].content == "Fits"
    assert [message["content"] for message in model.asked[1]][1:] == [
        "old 3", "answer 3", "old 4", "answer 4", "Hello",
    ]  # fmt: skip
    for history, questions in ((5, 2), (0, 1)):
        model = Model([ContextTooLong("too long")])
        stored, _ = await play(model, ask=question(history=history))
        assert "/new" in stored[-1].content
        assert len(model.asked) == questions


async def test_leaving_in_the_middle_closes_the_models_stream() -> None:
    model = Model([Text("Once"), asyncio.Event()])
    items = runner(model).run(question())
    assert await anext(items) == Delta("t1", "Once")
    waiting = asyncio.create_task(anext(items))
    await model.waiting.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert model.closed == 1
    await items.aclose()


async def test_leaving_in_the_middle_ends_the_tools() -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    items = runner(Model([calls(("slow", "{}"))]), Tool("slow", "", {}, slow)).run(question())
    assert isinstance(await told(items), list)
    assert isinstance(await told(items), ToolActivity)
    waiting = asyncio.create_task(anext(items))
    await entered.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
    await items.aclose()


async def test_two_sessions_share_nothing() -> None:
    model = Model([Text("Hi"), stop()])
    shared = runner(model)

    async def ask(text: str) -> None:
        async for _ in shared.run(question(text)):
            await asyncio.sleep(0)

    await asyncio.gather(ask("one"), ask("two"))
    assert [[message["content"] for message in asked] for asked in model.asked] == [
        ["Be kind.", "one"],
        ["Be kind.", "two"],
    ]


class Seeing:
    """Gives every message one part, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str | None], list[str | None]]] = []

    async def of(self, session: SessionId, earlier: Iterable[User], current: Sequence[User]) -> Parts:
        ids = [message.id for message in earlier], [message.id for message in current]
        self.asked.append(ids)
        return {id: [{"type": "text", "text": f"<{id}>"}] for id in ids[1] if id}


async def test_a_model_that_sees_gets_what_came_with_messages() -> None:
    model, seeing = Model([calls(("echo", "{}"))], [Text("Done"), stop()]), Seeing()
    model.vision = True
    run = AgentRunner("Be kind.", model, Toolbox([Tool("echo", "", {"type": "object"}, echo)]), seeing).run
    stored: list[Any] = [item async for item in run(question("Look", history=1))]
    assert stored[-1][-1].content == "Done"
    assert seeing.asked == [([None], ["m1"])]  # once: nothing came meanwhile
    for asked in model.asked:
        assert asked[3]["content"] == [{"type": "text", "text": "Look"}, {"type": "text", "text": "<m1>"}]


async def test_thoughts_are_kept_with_what_is_said_next() -> None:
    thinking = [
        replace(finish, reasoning=thought)
        for finish, thought in ((calls(("echo", "{}")), "a tool"), (stop(), "an answer"))
    ]
    stored, _ = await play(Model([thinking[0]], [Text("Done"), thinking[1]]))
    assert stored[-1].reasoning == "a tool\n\nan answer"
    stored, _ = await play(Model([Text("Hi"), stop()]))
    assert stored[-1].reasoning is None


# -- the context -----------------------------------------------------------------------------------


async def uses(model: Model, ask: Ask) -> list[ContextUse]:
    return [item async for item in runner(model).run(ask) if isinstance(item, ContextUse)]


async def test_what_fits_into_the_context_is_what_the_model_is_shown() -> None:
    model = Model([Text("Fine"), stop()])
    model.context = 1000
    ask = question("long " * 100, history=0)
    for number in range(20):
        past = Exchange(f"p{number}", [User(content=f"{number} " + "words " * 50)])
        past.steps.append(Assistant(content="answer"))
        ask.history.append(past)
    [use] = await uses(model, ask._replace(summary="They count."))
    shown = model.asked[0]
    assert shown[0]["content"].endswith("They count.")
    assert shown[-2]["content"] == "answer"
    assert shown[-1]["content"].startswith("long")
    assert 0 < len(shown) - 2 < 40
    assert use == ContextUse(10, 1000, len(shown) - 2)


async def test_what_had_to_be_left_out_is_told_although_the_turn_fails() -> None:
    model = Model([ContextTooLong("too long")])
    assert [use.room for use in await uses(model, question(history=5))] == [4]


async def test_a_summary_is_asked_of_the_sessions_model() -> None:
    asked_for: list[str | None] = []

    class Chosen(Model):
        async def get(self, name: str | None, session: SessionId) -> Model:
            asked_for.append(name)
            return self

    model = Chosen([Asked(Usage(8, estimated=True)), Text("In short."), stop()])
    recap = Recap(SessionId("agent:main:cli:local"), question(history=3).history, None, "large")
    items = [item async for item in runner(model).summarise(recap)]
    assert items[-1] == [System(name="summary", content="In short.", model="served-1", usage=Usage(10, 5))]
    assert asked_for == ["large"]
    assert model.schemas == []


async def test_few_summaries_are_written_at_once() -> None:
    go_on = asyncio.Event()
    model = Model([go_on, Text("In short."), stop()])
    shared = runner(model)

    async def sum_up() -> None:
        recap = Recap(SessionId("agent:main:cli:local"), question(history=3).history)
        async for _ in shared.summarise(recap):
            pass

    tasks = [asyncio.create_task(sum_up()) for _ in range(5)]
    await model.waiting.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(model.asked) == MAX_SUMMARIES
    go_on.set()
    await asyncio.gather(*tasks)
    assert len(model.asked) == 5
