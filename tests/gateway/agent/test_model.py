"""Every row of the model's side of the faults, through a real server on loopback."""

import asyncio
import email.utils
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import httpx2
import pytest
import structlog

from gateway.agent.endpoint import Endpoint, Limits, Price
from gateway.agent.model import Model
from gateway.agent.model_errors import (
    BadRequest,
    BrokenReply,
    ContentRefused,
    ContextTooLong,
    EmptyReply,
    GarbledReply,
    ModelError,
    ModelMisconfigured,
    ModelServerFault,
    ModelSilent,
    ModelUnreachable,
    QuotaExhausted,
    RateLimited,
)
from gateway.agent.reply import Asked, Call, Finish, Text
from session.events import Usage
from tests.fakes.openai_server import (
    BadJson,
    Behaviour,
    CallTools,
    ChoicesEmpty,
    ChoicesNull,
    CutAfter,
    EndAfter,
    ErrorInStream,
    Events,
    Filtered,
    Hang,
    Html200,
    HtmlInStream,
    Length,
    NoDone,
    NoFinish,
    OpenAIServer,
    PingForEver,
    Raw,
    Reset,
    Say,
    Stall,
    Status,
    Trickle,
    WholeJson,
    chunk,
)
from tests.fakes.openai_server import EmptyReply as Empty

KEY = "sk-verysecret-0123456789"
HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
SAID = Say("Hello, this is a reply.")
FRAGMENTS = CallTools([("f", {"a": "long enough for some pieces"})])


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
def pauses() -> list[float]:
    """What the model would have slept between its tries."""
    return []


Connect = Callable[..., Model]


@pytest.fixture
async def connect(server: OpenAIServer, pauses: list[float]) -> AsyncIterator[Connect]:
    made: list[Model] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    def connect(
        base_url: str = server.base_url, sleep: Callable[[float], Awaitable[None]] = sleep, **limits: Any
    ) -> Model:
        made.append(Model(Endpoint(base_url, "gpt-x", KEY, Limits(**limits)), sleep=sleep))
        return made[-1]

    yield connect
    for model in made:
        await model.close()


async def ask(model: Model, tools: list[dict[str, Any]] | None = None) -> tuple[str, Finish]:
    """The text and the end; checks the shape that every reply has."""
    async with asyncio.timeout(30):
        pieces = [piece async for piece in model.ask(HI, tools or []) if not isinstance(piece, Asked)]
    *texts, end = pieces
    assert isinstance(end, Finish)
    assert all(isinstance(piece, Text) and piece.text for piece in texts)
    return "".join(piece.text for piece in texts if isinstance(piece, Text)), end


async def refused(model: Model) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(model)
    return caught.value


# --- replies as they should be ---


async def test_a_reply(server: OpenAIServer, connect: Connect) -> None:
    server.script(Say("Grüße 🌍!"))
    assert await ask(connect(), TOOLS) == ("Grüße 🌍!", Finish("stop", (), "fake-1", Usage(9, 5)))
    [asked] = server.requests
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "gpt-x",
        "messages": HI,
        "tools": TOOLS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_no_tools_are_not_an_empty_list(server: OpenAIServer, connect: Connect) -> None:
    await ask(connect())
    assert "tools" not in server.requests[0].body


async def test_text_comes_while_the_stream_is_open(server: OpenAIServer, connect: Connect) -> None:
    server.script(Stall(3, SAID))
    reply = connect().ask(HI, [])
    assert isinstance(await anext(reply), Asked)
    got = ""
    while got != "Hello, t":
        piece = await anext(reply)
        assert isinstance(piece, Text)
        got += piece.text
    server.release.set()
    rest = [piece async for piece in reply]
    assert got + "".join(piece.text for piece in rest if isinstance(piece, Text)) == SAID.text


CHUNK = b'{"choices":[{"delta":{"content":"\xc3\xa9"},"finish_reason":"stop"}]}'
NAMELESS = '{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a"}]},"finish_reason":"tool_calls"}]}'


@pytest.mark.parametrize(
    ("behaviour", "text", "reason"),
    [
        (Trickle("Grüße 🌍, Welt"), "Grüße 🌍, Welt", "stop"),
        (WholeJson("all at once ü"), "all at once ü", "stop"),
        (WholeJson("no reason", finish=None), "no reason", "stop"),
        (NoDone("done all the same"), "done all the same", "stop"),
        (Length("and so o"), "and so o", "length"),
        (Length(""), "", "length"),
        (Filtered("I will"), "I will", "filtered"),
        (Filtered(""), "", "filtered"),
        (Events([chunk({"reasoning_content": "hm"}), *SAID.events()]), SAID.text, "stop"),
        (Raw([b": WAIT\r\n\r\ndata:", CHUNK[:35], CHUNK[35:], b"\r\n\r\ndata:[DONE]\r\n\r\n"]), "é", "stop"),
    ],
)  # fmt: skip
async def test_replies(
    server: OpenAIServer, connect: Connect, behaviour: Behaviour, text: str, reason: str
) -> None:
    server.script(behaviour)
    got, finish = await ask(connect())
    assert (got, finish.reason, finish.calls, len(server.requests)) == (text, reason, (), 1)


@pytest.mark.parametrize(
    "behaviour",
    [
        CallTools([("f", {"x": 1}), ("g", "{bad")]),
        CallTools([("f", {"x": 1}), ("g", "{bad")], finish="stop"),
        WholeJson(None, [("f", {"x": 1}), ("g", "{bad")], finish="tool_calls"),
    ],
)
async def test_tool_calls(server: OpenAIServer, connect: Connect, behaviour: Behaviour) -> None:
    server.script(behaviour)
    text, finish = await ask(connect(), TOOLS)
    assert (text, finish.reason) == ("", "tool_calls")
    assert finish.calls == (Call("f", '{"x": 1}', "call_0"), Call("g", "{bad", "call_1"))


async def test_text_before_tool_calls(server: OpenAIServer, connect: Connect) -> None:
    server.script(CallTools([("f", {})], text="Let me see."))
    text, finish = await ask(connect(), TOOLS)
    assert (text, finish.reason) == ("Let me see.", "tool_calls")


class EndsLate:
    """The end of the body comes a moment after [DONE]."""

    async def answer(self, exchange: Any) -> None:
        for event in SAID.events():
            await exchange.event(event)
        await asyncio.sleep(0.02)
        await exchange.end()


@pytest.mark.parametrize("behaviour", [SAID, EndsLate()], ids=["at once", "late"])
async def test_one_connection_serves_many_replies(
    server: OpenAIServer, connect: Connect, behaviour: Behaviour
) -> None:
    model = connect()
    server.reply = lambda body: behaviour
    for _ in range(4):
        await ask(model)
    assert len(set(server.peers)) == 1


async def test_after_a_rush_one_connection_is_used_on_and_the_others_may_go(
    server: OpenAIServer, connect: Connect
) -> None:
    model = connect()
    server.reply = lambda body: Say("a slow one", size=2, delay=0.02)
    await asyncio.gather(*(ask(model) for _ in range(8)))
    server.reply = lambda body: SAID
    for _ in range(8):
        await ask(model)
    assert len(set(server.peers[:8])) == 8
    assert len(set(server.peers[8:])) == 1


async def test_a_proxy_of_the_environment_is_asked_over_one_connection_too(
    server: OpenAIServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
    model = connect(base_url="http://model.invalid/v1")
    server.reply = lambda body: Say("a slow one", size=2, delay=0.02)
    await asyncio.gather(*(ask(model) for _ in range(8)))
    for _ in range(8):
        await ask(model)
    assert len(set(server.peers[8:])) == 1


async def test_many_replies_at_once(server: OpenAIServer, connect: Connect) -> None:
    model = connect()
    server.reply = lambda body: Say(body["messages"][0]["content"] * 20)

    async def one(name: str) -> None:
        pieces = [piece async for piece in model.ask([{"role": "user", "content": name}], [])]
        assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == name * 20

    await asyncio.gather(*(one(f"<{number}>") for number in range(60)))


# --- tried again while nothing was shown ---

TRIED_AGAIN = [
    Html200(),
    HtmlInStream(0),
    NoFinish(),
    ChoicesNull(),
    ChoicesEmpty(),
    BadJson(0),
    BadJson(1),
    ErrorInStream(1),
    ErrorInStream(1, error={"code": 502, "message": "upstream"}),
    ErrorInStream(1, error={"code": "rate_limit_exceeded", "message": "slow down"}),
    Reset(),
    CutAfter(0),
    CutAfter(1),
    EndAfter(0),
    EndAfter(1),
    Raw([b"data: [DONE]\n\n"]),
    Events([NAMELESS]),
    Raw([b"data: " + b"x" * 3000]),
    Status(408),
    Status(409),
    Status(429),
    Status(429, "<html>slow down</html>"),
    Status(500),
    Status(502, "<html>bad gateway</html>"),
    Status(503),
    Status(529),
]  # fmt: skip


@pytest.mark.parametrize("behaviour", TRIED_AGAIN, ids=str)
async def test_another_try_helps(
    server: OpenAIServer, connect: Connect, pauses: list[float], behaviour: Behaviour
) -> None:
    server.script(behaviour, behaviour, behaviour, SAID)
    model = connect(line=2000)
    text, finish = await ask(model)
    assert (text, finish.reason, model.health) == (SAID.text, "stop", None)
    assert len(server.requests) == 4
    assert all(0.5 <= pause <= 8 for pause in pauses)
    assert pauses == sorted(pauses)


@pytest.mark.parametrize("behaviour", TRIED_AGAIN, ids=str)
async def test_there_are_four_tries(server: OpenAIServer, connect: Connect, behaviour: Behaviour) -> None:
    server.script(*[behaviour] * 9)
    error = await refused(connect(line=2000))
    assert len(server.requests) == 4
    assert error.public
    assert error.public != str(error)


@pytest.mark.parametrize("after", range(len(FRAGMENTS.events()) - 1))
@pytest.mark.parametrize("breaks", [CutAfter, EndAfter, BadJson, ErrorInStream])
async def test_broken_among_tool_calls(
    server: OpenAIServer, connect: Connect, breaks: Any, after: int
) -> None:
    finished = len(FRAGMENTS.events()) - 1  # finish_reason and [DONE] are the last two
    server.script(breaks(after, FRAGMENTS), FRAGMENTS)
    text, finish = await ask(connect(), TOOLS)
    assert (text, finish.reason, len(finish.calls)) == ("", "tool_calls", 1)
    assert len(server.requests) == (2 if after < finished else 1)


async def test_silence_before_the_first_chunk(server: OpenAIServer, connect: Connect) -> None:
    server.script(Hang(), Stall(0), PingForEver(0), SAID)
    assert (await ask(connect(first_chunk=0.1)))[0] == SAID.text
    await server.until(lambda server: server.disconnects == 3)


async def test_silence_after_a_chunk_without_text(server: OpenAIServer, connect: Connect) -> None:
    server.script(Stall(1), PingForEver(1), SAID)
    assert (await ask(connect(between_chunks=0.1)))[0] == SAID.text


async def test_nobody_listens(connect: Connect) -> None:
    async with OpenAIServer() as gone:
        url = gone.base_url
    model = connect(url)
    error = await refused(model)
    assert type(error) is ModelUnreachable
    assert model.health is not None
    assert url.split("/")[2] in model.health


async def test_health_is_cleared_by_a_success(server: OpenAIServer, connect: Connect) -> None:
    model = connect()
    server.script(Status(401), Status(400))
    await refused(model)
    health = model.health
    await refused(model)
    assert model.health == health is not None
    await ask(model)
    assert model.health is None


async def test_the_budget_ends_the_tries(server: OpenAIServer, connect: Connect) -> None:
    server.script(*[Hang()] * 4)
    error = await refused(connect(first_chunk=0.2, budget=0.3, sleep=lambda _: asyncio.sleep(0)))
    assert type(error) is ModelSilent
    assert len(server.requests) < 4


async def test_the_budget_ends_the_waiting_for_a_first_chunk(server: OpenAIServer, connect: Connect) -> None:
    server.script(Hang())
    async with asyncio.timeout(10):
        error = await refused(connect(first_chunk=60, budget=0.2))
    assert type(error) is ModelSilent
    assert len(server.requests) == 1


async def test_an_empty_reply_is_tried_once_more(server: OpenAIServer, connect: Connect) -> None:
    server.script(Empty(), SAID)
    assert (await ask(connect()))[0] == SAID.text
    server.script(Say(" \n"), Status(500), Empty(), SAID)
    error = await refused(connect())
    assert type(error) is EmptyReply
    assert "empty" in error.public


# --- how long a server asks us to wait ---


def dated(value: str) -> str:
    """Makes "in 40 s" the HTTP date of that moment; it is made when the test runs."""
    if not value.startswith("in "):
        return value
    return email.utils.formatdate(time.time() + int(value.split()[1]), usegmt=True)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "20"}, 20, 20),
        ({"Retry-After": "1.5"}, 1.5, 1.5),
        ({"retry-after-ms": "9000", "Retry-After": "30"}, 9, 9),
        ({"Retry-After": "in 40 s"}, 30, 40),
        ({"Retry-After": "in -40 s"}, 0.5, 2),
        ({"Retry-After": "-3"}, 0.5, 2),
        ({"Retry-After": "soon"}, 0.5, 2),
        ({"Retry-After": "nan"}, 0.5, 2),
    ],
)
async def test_retry_after_is_obeyed(
    server: OpenAIServer,
    connect: Connect,
    pauses: list[float],
    code: int,
    headers: dict[str, str],
    low: float,
    high: float,
) -> None:
    server.script(Status(code, None, {name: dated(value) for name, value in headers.items()}), SAID)
    assert (await ask(connect()))[0] == SAID.text
    [pause] = pauses
    assert low <= pause <= high


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [
        ("61", "2 minutes"),
        ("90000", "25 hours"),
        ("1e300", "a few days"),
        ("inf", "a few days"),
        ("in 300 s", "5 minutes"),
    ],
)
async def test_a_long_wait_is_told(
    server: OpenAIServer, connect: Connect, pauses: list[float], asked: str, spoken: str
) -> None:
    server.script(Status(429, None, {"Retry-After": dated(asked)}))
    error = await refused(connect())
    assert type(error) is RateLimited
    assert spoken in error.public
    assert (len(server.requests), pauses) == (1, [])


async def test_a_wait_past_the_budget_is_told(
    server: OpenAIServer, connect: Connect, pauses: list[float]
) -> None:
    server.script(Status(429, None, {"Retry-After": "50"}))
    error = await refused(connect(budget=49))
    assert "50 seconds" in error.public
    assert (len(server.requests), pauses) == (1, [])


# --- not tried again ---


@pytest.mark.parametrize(
    ("behaviour", "kind", "red"),
    [
        (Status(400), BadRequest, False),
        (Status(422), BadRequest, False),
        (Status(401), ModelMisconfigured, True),
        (Status(403), ModelMisconfigured, True),
        (Status(404), ModelMisconfigured, True),
        (Status(405), ModelMisconfigured, True),
        (
            Status(400, {"error": {"message": "no such model", "code": "model_not_found"}}),
            ModelMisconfigured,
            True,
        ),
        (Status(402), QuotaExhausted, True),
        (Status(429, {"error": {"message": "pay", "code": "insufficient_quota"}}), QuotaExhausted, True),
        (Status(413), ContextTooLong, False),
        (Status(400, {"error": {"message": "…", "code": "context_length_exceeded"}}), ContextTooLong, False),
        (
            Status(400, {"message": "This model's maximum context length is 4096 tokens."}),
            ContextTooLong,
            False,
        ),
        (
            Status(500, {"error": {"message": "the request exceeds the available context size"}}),
            ContextTooLong,
            False,
        ),
        (Status(400, {"error": "prompt is too long: 9 tokens > 8 maximum"}), ContextTooLong, False),
        (Status(400, {"error": {"message": "filtered", "code": "content_filter"}}), ContentRefused, False),
        (ErrorInStream(1, error={"message": "x", "code": "context_length_exceeded"}), ContextTooLong, False),
        (ErrorInStream(1, error={"message": "x", "code": 401}), ModelMisconfigured, True),
    ],
    ids=str,
)
async def test_refusals(
    server: OpenAIServer, connect: Connect, behaviour: Behaviour, kind: type[ModelError], red: bool
) -> None:
    server.script(behaviour, SAID)
    model = connect()
    error = await refused(model)
    assert type(error) is kind
    assert (model.health is not None) == red
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "302 Found"])
async def test_a_refusal_without_end_is_read_to_the_why(connect: Connect, status: str) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nno: \r\n".encode())
        with suppress(ConnectionError):
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
        writer.close()
        gone.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        error = await refused(connect(f"http://127.0.0.1:{port}/v1", first_chunk=20, budget=20))
        assert "no: xxx" in str(error)
        await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize("text", ["a lone \ud800 surrogate", float("nan"), object()])
async def test_what_cannot_be_written_is_a_bad_request(
    server: OpenAIServer, connect: Connect, text: object
) -> None:
    model = connect()
    asking = model.ask([{"role": "user", "content": text}], [])
    assert [type(await anext(asking)) for _ in range(2)] == [Asked, Asked]
    with pytest.raises(BadRequest):
        await anext(asking)
    assert server.requests == []
    assert model.health is None


@pytest.mark.parametrize("base_url", ["nonsense", "ftp://example.com/v1", "http://", "http://a:b/v1"])
def test_an_address_that_is_none(base_url: str) -> None:
    with pytest.raises(ModelMisconfigured) as caught:
        Model(Endpoint(base_url, "x"))
    assert caught.value.health


def test_a_key_that_is_none() -> None:
    with pytest.raises(ModelMisconfigured) as caught:
        Model(Endpoint("http://127.0.0.1:9/v1", "x", "sk-\u2026secret\n1"))
    assert "secret" not in str(caught.value)


# --- once text was shown ---


@pytest.mark.parametrize("after", range(2, len(SAID.events()) + 1))
@pytest.mark.parametrize("breaks", [CutAfter, EndAfter, BadJson, HtmlInStream, ErrorInStream, Stall])
async def test_shown_text_is_kept_and_nothing_is_tried_again(
    server: OpenAIServer, connect: Connect, breaks: Any, after: int
) -> None:
    events = SAID.events()
    shown = "".join(
        event["choices"][0]["delta"].get("content", "")
        for event in events[:after]
        if isinstance(event, dict) and event["choices"]
    )
    finished = after >= len(events) - 2  # then come the usage and [DONE]
    server.script(breaks(after), Say("never"))
    text, finish = await ask(connect(between_chunks=0.1, after_finish=0.1))
    assert finish.reason == ("stop" if finished else "cut")
    assert text == shown
    assert len(server.requests) == 1


async def test_calls_of_a_cut_reply_are_dropped(server: OpenAIServer, connect: Connect) -> None:
    server.script(EndAfter(4, CallTools([("f", {"a": "long enough"})], text="Let me see.")))
    text, finish = await ask(connect(), TOOLS)
    assert (text, finish.reason, finish.calls) == ("Let me see.", "cut", ())


async def test_comments_are_no_progress(server: OpenAIServer, connect: Connect) -> None:
    server.script(PingForEver(3))
    assert (await ask(connect(between_chunks=0.1)))[1].reason == "cut"


async def test_reasoning_is_progress(server: OpenAIServer, connect: Connect) -> None:
    thoughts = [chunk({"reasoning_content": "hm"})] * 12
    events = [*thoughts, *SAID.events()]

    class Slow:
        async def answer(self, exchange: Any) -> None:
            for event in events:
                await asyncio.sleep(0.03)
                await exchange.event(event)
            await exchange.end()

    server.script(Slow())
    text, finish = await ask(connect(first_chunk=0.25, between_chunks=0.25, budget=0.3))
    assert (text, finish.reason, len(server.requests)) == (SAID.text, "stop", 1)


# --- servers that lack a parameter ---

NO_STREAM_OPTIONS = Status(
    400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}
)
NO_TOOLS = Status(400, {"error": {"message": "registry/gemma:2b does not support tools"}})


async def test_refused_parameters_are_dropped_and_remembered(server: OpenAIServer, connect: Connect) -> None:
    model = connect()
    server.script(NO_STREAM_OPTIONS, NO_TOOLS, SAID)
    assert (await ask(model, TOOLS))[0] == SAID.text
    await ask(model, TOOLS)
    assert [sorted(asked.body.keys() & {"tools", "stream_options"}) for asked in server.requests] == [
        ["stream_options", "tools"],
        ["tools"],
        [],
        [],
    ]


async def test_a_quoted_complaint_takes_no_tools_from_others(server: OpenAIServer, connect: Connect) -> None:
    model = connect()
    server.script(NO_TOOLS, Status(400, {"error": {"message": "bad input: 'does not support tools'"}}))
    assert type(await refused_with_tools(model)) is BadRequest
    await ask(model, TOOLS)
    assert "tools" in server.requests[-1].body


async def refused_with_tools(model: Model) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(model, TOOLS)
    return caught.value


# --- leaving ---


@pytest.mark.parametrize("behaviour", [Hang(), Stall(0), Stall(1), Stall(3), PingForEver(3)], ids=str)
async def test_cancelling_closes_the_connection(
    server: OpenAIServer, connect: Connect, behaviour: Behaviour
) -> None:
    server.script(behaviour)
    asking = asyncio.create_task(ask(connect()))
    await server.until(lambda server: len(server.requests) == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await server.until(lambda server: server.disconnects == 1)


async def test_closing_the_generator_closes_the_connection(server: OpenAIServer, connect: Connect) -> None:
    server.script(Stall(3))
    async with aclosing(connect().ask(HI, [])) as reply:
        assert [type(await anext(reply)) for _ in range(2)] == [Asked, Text]
    await server.until(lambda server: server.disconnects == 1)


async def test_cancelling_while_it_waits_to_try_again(server: OpenAIServer, connect: Connect) -> None:
    server.script(Status(500))
    waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    asking = asyncio.create_task(ask(connect(sleep=sleep)))
    await asyncio.wait_for(waiting.wait(), 5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


# --- secrets ---

LEAKS = [
    Status(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
    Status(401, {"error": {"message": "Incorrect API key provided: sk-proj-abcd****wxyz"}}),
    Status(400, f"<html>Authorization: Bearer {KEY}</html>"),
    Status(500, {"error": {"message": f"http://user:{KEY}@inner/v1?key={KEY} failed"}}),
    ErrorInStream(1, error={"message": KEY}),
    HtmlInStream(0),
    Raw([f"data: {KEY}\n\n".encode()]),
    Raw([f"{KEY} is wrong\n".encode()]),
    Reset(),
]


@asynccontextmanager
async def with_password(server: OpenAIServer, password: str) -> AsyncIterator[Model]:
    url = server.base_url.replace("http://", f"http://user:{password}@")
    model = Model(Endpoint(url, "gpt-x", KEY, Limits(tries=1)))
    yield model
    await model.close()


@pytest.mark.parametrize("behaviour", LEAKS, ids=range(len(LEAKS)))
async def test_no_secret_is_in_any_error_or_log(server: OpenAIServer, behaviour: Behaviour) -> None:
    server.script(behaviour)
    with structlog.testing.capture_logs() as logged:
        async with with_password(server, "hunter22") as model:
            error = await refused(model)
            shown = "".join(
                [
                    *traceback.format_exception(error),
                    error.public,
                    repr(vars(error)),
                    str(model.health),
                    str(logged),
                ]
            )
    for secret in (KEY, "hunter22", "abcd****"):
        assert secret not in shown


@pytest.mark.parametrize("kind", [httpx2.ConnectError, httpx2.UnsupportedProtocol, RuntimeError, ValueError])
async def test_no_secret_is_in_what_a_foreign_exception_becomes(kind: type[Exception]) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise kind(f"cannot get http://user:hunter22@inner/?key={KEY} with Bearer {KEY}")

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(fail))
    model = Model(Endpoint("http://127.0.0.1:9/v1", "x", KEY, Limits(tries=1)), http_client=client)
    error = await refused(model)
    await model.close()
    shown = "".join([*traceback.format_exception(error), error.public, repr(vars(error)), str(model.health)])
    assert "cannot get" in shown
    assert KEY not in shown
    assert "hunter22" not in shown


async def test_a_password_in_the_address_is_sent_as_such(server: OpenAIServer) -> None:
    async with with_password(server, "hunter22") as model:
        await ask(model)
    assert server.requests[0].headers["authorization"].startswith("Basic ")


def test_an_endpoint_does_not_print_its_key() -> None:
    endpoint = Endpoint("http://user:hunter22@127.0.0.1/v1", "gpt-x", KEY)
    assert KEY not in repr(endpoint) + str(endpoint)
    assert "hunter22" not in repr(endpoint) + str(endpoint)


async def test_without_a_key_none_is_taken_from_the_environment(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = Model(Endpoint(server.base_url, "x"))
    await ask(model)
    await model.close()
    assert KEY not in str(server.requests[0].headers)


async def test_a_proxy_of_the_environment_is_not_used_on_this_machine(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    model = Model(Endpoint(server.base_url, "x", limits=Limits(tries=1)))
    await ask(model)
    await model.close()


def test_the_types_come_without_the_client_library() -> None:
    import subprocess
    import sys

    light = "import sys, gateway.agent.reply, gateway.agent.endpoint, gateway.agent.model_errors"
    code = (
        f"{light}; sys.exit(any(name in sys.modules for name in ('openai', 'httpx2', 'aiohttp', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# BrokenReply, GarbledReply and ModelServerFault are what the tries end in:


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Html200(), GarbledReply),
        (ChoicesEmpty(), BrokenReply),
        (CutAfter(1), BrokenReply),
        (ErrorInStream(1), ModelServerFault),
        (Status(500), ModelServerFault),
        (Status(429), RateLimited),
        (Reset(), ModelUnreachable),
    ],
    ids=str,
)
async def test_what_four_tries_end_in(
    server: OpenAIServer, connect: Connect, behaviour: Behaviour, kind: type[ModelError]
) -> None:
    server.script(*[behaviour] * 4)
    assert type(await refused(connect())) is kind


# --- what it takes ---


async def pieces_of(model: Model) -> tuple[list[Usage], Finish]:
    pieces = [piece async for piece in model.ask(HI, [])]
    assert isinstance(pieces[-1], Finish)
    return [piece.usage for piece in pieces if isinstance(piece, Asked)], pieces[-1]


@asynccontextmanager
async def priced(server: OpenAIServer, **more: Any) -> AsyncIterator[Model]:
    model = Model(Endpoint(server.base_url, "gpt-x", price=Price(3.0, 15.0), **more))
    yield model
    await model.close()


async def test_a_request_is_estimated_before_it_is_answered(server: OpenAIServer) -> None:
    async with priced(server) as model:
        [asked], finish = await pieces_of(model)
    assert asked == Usage(5, 0, 0.000015, estimated=True)
    assert finish.usage == Usage(9, 5, 0.000102)


@pytest.mark.parametrize(
    "uncounted",
    [
        Events([chunk({"content": "x" * 20}), chunk({}, "stop"), "[DONE]"]),
        Events([chunk({"content": "x" * 20}), {**chunk({}, "stop"), "usage": {}}, "[DONE]"]),
        Events([chunk({"reasoning_content": "x" * 18}), chunk({"content": "xx"}), chunk({}, "stop")]),
        EndAfter(3, Say("x" * 20 + "more", size=10)),
    ],
)
async def test_what_the_server_does_not_count_is_estimated(
    server: OpenAIServer, uncounted: Behaviour
) -> None:
    server.script(uncounted)
    async with priced(server) as model:
        _, finish = await pieces_of(model)
    assert finish.usage == Usage(5, 5, 0.00009, estimated=True)


@pytest.mark.parametrize(
    ("behaviour", "lost"), [(Status(500), 0), (Reset(), 0), (Html200(), 0), (CutAfter(1), 5), (Empty(), 5)]
)
async def test_a_request_that_was_worked_on_counts(
    server: OpenAIServer, behaviour: Behaviour, lost: int
) -> None:
    server.script(behaviour)
    async with priced(server) as model:
        asked, finish = await pieces_of(model)
    assert [usage.input for usage in asked] == [5, lost, lost + 5]
    assert finish.usage is not None
    assert (finish.usage.input, finish.usage.estimated) == (lost + 9, lost > 0)


async def test_thoughts_are_kept_where_that_is_asked_for(server: OpenAIServer) -> None:
    for keep, thoughts in ((True, "hm"), (False, "")):
        server.script(Events([chunk({"reasoning_content": "hm"}), *SAID.events()]))
        async with priced(server, keep_reasoning=keep) as model:
            assert (await ask(model))[1].reasoning == thoughts
