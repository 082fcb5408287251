"""The agent's models, one after another: real servers, each of which fails in its own way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog

from gateway.agent.chain import AgentModels, Chain, _share
from gateway.agent.endpoint import Limits
from gateway.agent.model_errors import (
    BadRequest,
    ContentRefused,
    ContextTooLong,
    ModelError,
    ModelMisconfigured,
    RateLimited,
)
from gateway.agent.models import Models
from gateway.agent.reply import Asked, Finish, Text
from gateway.config import Model as Settings
from session.events import Usage
from session.ids import SessionId
from tests.fakes.openai_server import (
    Behaviour,
    ChoicesNull,
    CutAfter,
    Hang,
    Html200,
    OpenAIServer,
    Reset,
    Say,
    Status,
)

A, B = SessionId("agent:main:cli:a"), SessionId("agent:main:cli:b")
HI = [{"role": "user", "content": "hi"}]
SEEN = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ],
    }
]
QUICK = Limits(tries=4, budget=20.0, first_chunk=0.3)


class Servers:
    """Three servers, behind models called `first`, `second` and `third`, and an agent that asks them all."""

    def __init__(self, servers: dict[str, OpenAIServer], **settings: Any) -> None:
        self.servers = servers
        self.models = Models(
            {
                name: Settings.model_validate({"base_url": server.base_url, "name": name, **settings})
                for name, server in servers.items()
            },
            QUICK,
        )
        self.agent: AgentModels = self.models.of_agent("main", list(servers))
        for name in servers:
            self.broken(Say(f"{name} here"), name)

    def __getitem__(self, name: str) -> OpenAIServer:
        return self.servers[name]

    def broken(self, behaviour: Behaviour, *names: str) -> None:
        for name in names:
            self[name].reply = lambda body: behaviour

    @property
    def asked(self) -> list[int]:
        return [len(server.requests) for server in self.servers.values()]

    async def ask(self, session: SessionId = A, messages: Any = None, chosen: str | None = None) -> str:
        said, _ = await self.told(session, messages, chosen)
        return said

    async def told(
        self, session: SessionId = A, messages: Any = None, chosen: str | None = None
    ) -> tuple[str, Finish]:
        chain = await self.agent.get(chosen, session)
        async with asyncio.timeout(30):
            pieces = [piece async for piece in chain.ask(messages or HI, [])]
        assert isinstance(pieces[-1], Finish)
        return "".join(piece.text for piece in pieces if isinstance(piece, Text)), pieces[-1]


Make = Callable[..., Servers]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(OpenAIServer()) for _ in range(3)]
        made: list[Servers] = []

        def make(count: int = 3, **settings: Any) -> Servers:
            names = ("first", "second", "third")[:count]
            made.append(Servers(dict(zip(names, running, strict=False)), **settings))
            return made[-1]

        yield make
        for servers in made:
            await servers.models.close()


@pytest.fixture
def servers(make: Make) -> Servers:
    return make()


async def test_the_first_answers_and_nobody_else_is_asked(servers: Servers) -> None:
    assert await servers.ask() == "first here"
    assert servers.asked == [1, 0, 0]
    assert servers.models.told("first") == "first"


GOES_ON = [
    Reset(),
    Hang(),
    Status(500),
    Status(503),
    Status(529),
    Status(429),
    Status(429, None, {"Retry-After": "5"}),
    Status(429, {"error": {"message": "pay", "code": "insufficient_quota"}}),
    Status(402),
    Status(401),
    Status(403),
    Status(404),
    Html200(),
    ChoicesNull(),
    CutAfter(1),
    Say(""),
]


@pytest.mark.parametrize("behaviour", GOES_ON, ids=str)
async def test_another_one_is_asked_where_that_may_help(servers: Servers, behaviour: Behaviour) -> None:
    servers.broken(behaviour, "first")
    with structlog.testing.capture_logs() as logged:
        said, finish = await servers.told()
    assert said == "second here"
    assert finish.model == "fake-1"
    assert servers.asked == [1, 1, 0]
    [told] = [entry for entry in logged if entry["event"] == "another model is asked"]
    assert (told["model"], told["next"], told["session"]) == ("first", "second", A)
    assert told["reason"]
    assert servers.models.told("first") == "first does not answer; second does in its place"
    servers.broken(Say("back"), "first")
    await servers.ask()
    assert servers.models.told("first") == "first"


NEVER = [
    (Status(400), BadRequest),
    (Status(422), BadRequest),
    (Status(413), ContextTooLong),
    (Status(400, {"error": {"message": "…", "code": "context_length_exceeded"}}), ContextTooLong),
    (Status(400, {"error": {"message": "filtered", "code": "content_filter"}}), ContentRefused),
]


@pytest.mark.parametrize(("behaviour", "kind"), NEVER, ids=str)
async def test_what_is_wrong_with_the_request_is_told_by_the_first(
    servers: Servers, behaviour: Behaviour, kind: type[ModelError]
) -> None:
    servers.broken(behaviour, "first")
    for session in (A, B, A, B, A, B):
        with pytest.raises(kind):
            await servers.ask(session)
    assert servers.asked == [6, 0, 0]
    assert servers.models.breaker("first").state == "closed"


async def test_once_text_was_shown_nobody_else_is_asked(servers: Servers) -> None:
    servers.broken(CutAfter(3), "first")
    said, finish = await servers.told()
    assert (said, finish.reason) == ("Hell" + "o, t", "cut")
    assert servers.asked == [1, 0, 0]


async def test_where_none_answers_the_first_ones_error_is_told(servers: Servers) -> None:
    servers.broken(Status(401), "first")
    servers.broken(Status(500), "second")
    servers.broken(Status(404), "third")
    with pytest.raises(ModelMisconfigured, match="401"):
        await servers.ask()
    assert servers.asked == [1, 1, 1]


async def test_all_of_them_have_four_tries_together(servers: Servers) -> None:
    servers.broken(Status(500), "first", "second", "third")
    with pytest.raises(ModelError):
        await servers.ask()
    assert sum(servers.asked) == 4


async def test_one_alone_has_them_all(make: Make) -> None:
    servers = make(1)
    servers.broken(Status(500), "first")
    with pytest.raises(ModelError):
        await servers.ask()
    assert servers.asked == [4]


def test_the_budget_is_shared() -> None:
    limits = Limits()
    alone, of_two, of_three = (_share(limits, 4, 90.0, others) for others in range(3))
    assert alone == limits
    assert of_two
    assert (of_two.tries, of_two.budget, of_two.retry_after) == (2, 45.0, 2.0)
    assert of_three
    assert (of_three.tries, of_three.budget) == (1, 30.0)
    late = _share(limits, 2, 12.0, 1)
    assert late
    assert late.budget == 12.0
    assert _share(limits, 0, 50.0, 0) is None
    assert _share(limits, 2, 0.0, 0) is None


async def test_a_long_wait_is_for_the_last_one_alone(make: Make) -> None:
    servers = make(2)
    servers.broken(Status(429, None, {"Retry-After": "30"}), "first", "second")
    with pytest.raises(RateLimited, match="429"):
        await servers.ask()
    assert servers.asked == [1, 1]


async def test_an_open_breaker_is_told_once_and_passed_over(make: Make) -> None:
    servers = make(2)
    servers.broken(Status(401), "first")
    with structlog.testing.capture_logs() as logged:
        for session in (A, B, A, B, A):
            assert await servers.ask(session) == "second here"
    assert servers.asked == [3, 5]
    assert sum(entry["event"] == "a model is passed over for now" for entry in logged) == 1
    assert servers.models.faults == {}
    assert "401" in servers.models.remarks["first"]
    chain = await servers.agent.get(None, A)
    assert (chain.label, chain._order()) == ("first", ["second", "first"])


async def test_where_all_are_passed_over_they_are_asked_all_the_same(make: Make) -> None:
    servers = make(1)
    servers.broken(Status(401), "first")
    for session in (A, B, A, B):
        with pytest.raises(ModelMisconfigured):
            await servers.ask(session)
    assert servers.asked == [4]
    assert servers.models.breaker("first").state == "open"
    assert "401" in servers.models.faults["first"]
    servers.broken(Say("back"), "first")
    with structlog.testing.capture_logs() as logged:
        assert await servers.ask() == "back"
    assert "a model answers again" in [entry["event"] for entry in logged]
    assert servers.models.faults == servers.models.remarks == {}


async def test_one_bad_session_takes_the_model_from_nobody(make: Make) -> None:
    servers = make(2)
    servers["first"].reply = lambda body: Status(500) if body["messages"] != HI else Say("first here")
    bad = [{"role": "user", "content": "bad"}]
    for _ in range(8):
        assert await servers.ask(A, bad) == "second here"
    assert servers.models.breaker("first").state == "closed"
    assert await servers.ask(B) == "first here"


async def test_a_model_that_cannot_be_set_up_is_passed_over(make: Make) -> None:
    servers = make(2, api_key="kéy")
    servers.models.settings("second").__dict__["api_key"] = None
    assert await servers.ask() == "second here"


# -- money -----------------------------------------------------------------------------------------


async def test_every_request_is_counted_with_its_price(make: Make) -> None:
    servers = make(2, price={"input": 2.0, "output": 10.0})
    servers["first"].script(CutAfter(1), CutAfter(1))  # the server has worked on both
    chain = await servers.agent.get(None, A)
    pieces = [piece async for piece in chain.ask(HI, [])]
    asked = [piece.usage for piece in pieces if isinstance(piece, Asked)]
    finish = pieces[-1]
    assert isinstance(finish, Finish)
    least = asked[0].input
    assert servers.asked == [2, 1]
    # Before each request with it, and after each that failed without the next.
    assert [usage.input for usage in asked] == [least * count for count in (1, 1, 2, 2, 3)]
    assert all(usage.estimated and usage.cost for usage in asked)
    assert finish.usage is not None
    assert finish.usage.input == 2 * least + 9
    assert finish.usage.output == 5
    assert finish.usage.cost == pytest.approx((finish.usage.input * 2 + 5 * 10) / 1e6)


async def test_what_was_refused_costs_nothing(make: Make) -> None:
    servers = make(2, price={"input": 2.0, "output": 10.0})
    servers.broken(Status(401), "first")
    _, finish = await servers.told()
    assert finish.usage == Usage(9, 5, 0.000068)


async def test_without_a_price_there_is_no_cost(servers: Servers) -> None:
    _, finish = await servers.told()
    assert finish.usage == Usage(9, 5)


# -- whom to ask -----------------------------------------------------------------------------------


async def test_what_the_person_chose_comes_first(servers: Servers) -> None:
    assert await servers.ask(chosen="third") == "third here"
    assert servers.agent.names("third") == ("third", "first", "second")
    assert servers.agent.label("third") == "third"
    servers.broken(Status(401), "third")
    assert await servers.ask(chosen="third") == "first here"


async def test_a_model_that_is_configured_no_longer_is_said_in_the_log(servers: Servers) -> None:
    with structlog.testing.capture_logs() as logged:
        assert await servers.ask(chosen="gone") == "first here"
    assert logged[0]["event"] == "the session's model is not configured any more"
    assert servers.agent.label("gone") == "first"


def test_what_may_be_chosen(servers: Servers) -> None:
    agent = servers.models.of_agent("other", ["second", "second"])
    assert agent.choices(every=False) == {"second": "second"}
    assert list(agent.choices(every=True)) == ["second", "first", "third"]


# -- images ----------------------------------------------------------------------------------------


async def test_images_go_to_models_that_see(make: Make) -> None:
    servers = make(2, vision=True)
    servers.models._settings = {
        "first": servers.models.settings("first"),
        "second": servers.models.settings("second").model_copy(update={"vision": False}),
    }
    servers.broken(Status(500), "first")
    assert await servers.ask(messages=SEEN) == "second here"
    assert servers["first"].requests[0].body["messages"] == SEEN
    assert servers["second"].requests[0].body["messages"] == [{"role": "user", "content": "look"}]
    chain: Chain = await servers.agent.get(None, A)
    assert chain.vision


@pytest.mark.parametrize(
    "refusal",
    [
        Status(400, {"error": {"message": "this model does not support image input"}}),
        Status(404, {"error": {"message": "No endpoints found that support image input"}}),
        Status(500, {"error": {"message": "image input is not supported - you may need the mmproj"}}),
    ],
    ids=str,
)
async def test_a_server_that_refuses_images_is_asked_without_them(make: Make, refusal: Status) -> None:
    servers = make(1, vision=True)
    servers["first"].script(refusal)
    with structlog.testing.capture_logs() as logged:
        assert await servers.ask(messages=SEEN) == "first here"
    assert "asking without images and files" in [entry["event"] for entry in logged]
    assert [request.body["messages"][0]["content"] for request in servers["first"].requests] == [
        SEEN[0]["content"],
        "look",
    ]
    await servers.ask(messages=SEEN)  # it is no judgement on the next one
    assert servers["first"].requests[-1].body["messages"] == SEEN


async def test_a_400_that_is_not_about_images_is_told(make: Make) -> None:
    servers = make(1, vision=True)
    servers.broken(Status(400), "first")
    with pytest.raises(BadRequest):
        await servers.ask(messages=SEEN)
    assert servers.asked == [2]
