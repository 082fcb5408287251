"""The model's side of a turn: one question, its pieces as they come, and every way in which that can fail.

Chat Completions through the official client, whose own retries and stream decoder are not used: the first
may sleep for minutes, the second costs forty times what `stream.Decoder` does and raises bare JSON errors.
Importing this module imports `openai` (most of a second); `reply`, `endpoint` and `model_errors` are light.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import cache, partial
from typing import Any

import aiohttp
import httpx2
import openai
import structlog
from msgspec.structs import replace

from channels.connections import NewestFirst
from gateway import counters
from gateway.agent import estimate
from gateway.agent.answer import Answer
from gateway.agent.brief import keep_brief
from gateway.agent.content_parts import has_parts, parts_refused, without_parts
from gateway.agent.endpoint import Endpoint, Limits, is_local
from gateway.agent.model_errors import (
    BadRequest,
    BrokenReply,
    EmptyReply,
    ModelError,
    ModelMisconfigured,
    ModelSilent,
    ModelUnreachable,
)
from gateway.agent.optional_parameters import refused_parameter
from gateway.agent.pace import Pace, Pauses, connection_of
from gateway.agent.refusals import Refusal, retry_after, understood
from gateway.agent.reply import Asked, Call, Finish, Text
from gateway.agent.retries import Retries
from gateway.redaction import Redactor
from session.events import Usage

__all__ = ["Asked", "Call", "Endpoint", "Finish", "Limits", "Model", "ModelError", "Text", "Usage"]

_OPENAI = "https://api.openai.com/v1"
# The client refuses to be built without a key; local servers ignore it.
_NO_KEY = "none"

_Response = openai.AsyncAPIResponse[Any]
_Piece = Text | Finish
# Failures of requests that the server has worked on, and may count.
_WORKED_ON = (ModelSilent, BrokenReply, EmptyReply)

log = structlog.stdlib.get_logger(__name__)


class Model:
    """One model at one endpoint. Raises ModelMisconfigured if the endpoint cannot even be tried."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        http_client: httpx2.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.label = endpoint.name  # what people see
        # Why ready must be red: set by a lasting failure, cleared by a success.
        self.health: str | None = None
        self._limits = endpoint.limits
        self._price = endpoint.price
        self._keep_reasoning = endpoint.keep_reasoning
        self._sleep = sleep
        self._pauses = Pauses()
        self._lacking: frozenset[str] = frozenset()  # optional parameters that this server refused
        url, auth = _address(endpoint)
        redactor = Redactor((endpoint.api_key, *(auth or ())))
        self._failures = _Failures(endpoint, url.netloc.decode("ascii"), redactor)
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=_key(endpoint),
            max_retries=0,
            http_client=http_client or _http_client(auth, trust_env=not is_local(url.host)),
            # Reading is limited by `Answer`, chunk by chunk.
            timeout=httpx2.Timeout(None, connect=endpoint.limits.connect),
        )
        # Looked up here, where it may take its time: the client imports most of itself on first use.
        self._create = self._client.chat.completions.with_streaming_response.create

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], limits: Limits | None = None
    ) -> AsyncGenerator[Asked | Text | Finish]:
        """The reply to a conversation: `Asked` for each request, any number of `Text`, then one `Finish`.

        `messages` and `tools` are in the form of Chat Completions; `limits` stand for the model's own.
        Raises ModelError before the first text only: once text was shown nothing is tried again, and a reply
        that breaks ends in `Finish("cut")`. Closing the generator, or cancelling who reads it, closes the
        connection.
        """
        clock = asyncio.get_running_loop().time
        limits = limits or self._limits
        request: dict[str, Any] = {"model": self.label, "messages": messages}
        request["stream_options"] = {"include_usage": True}
        if tools:
            request["tools"] = tools
        retries = Retries(limits, clock())
        ends = clock() + limits.budget
        lost = Usage()  # what was taken by requests of which nobody heard the end
        while True:
            least = self._priced(Usage(estimate.tokens(request["messages"], tools), estimated=True))
            yield Asked(lost + least)
            counters.MODEL_CALLS.add(self.label)
            pieces = self._try(request, limits, ends)
            try:
                first = await anext(pieces)
            except ModelError as error:
                failure = error
                counters.MODEL_ERRORS.add(self.label, type(error).__name__)
            else:
                break
            if isinstance(failure, _WORKED_ON):
                lost += least
            yield Asked(lost)
            if has_parts(request["messages"]) and parts_refused(failure):
                log.warning("asking without images and files", model=self.label, reason=str(failure))
                request["messages"] = without_parts(request["messages"])
                continue
            pause = retries.pause(failure, clock())
            if pause is None:
                failure.tries = retries.tried
                self.health = failure.health or self.health
                log.warning("no answer", model=self.label, defect=type(failure).__name__, reason=str(failure))
                raise failure
            shown = round(pause, 1)
            log.info("asking again", model=self.label, tried=retries.tried, pause=shown, reason=str(failure))
            await self._sleep(pause)
        self.health = None
        async with aclosing(pieces):
            yield self._counted(first, lost, least)
            async for piece in pieces:
                yield self._counted(piece, lost, least)

    def _priced(self, usage: Usage) -> Usage:
        return self._price.of(usage) if self._price else usage

    def _counted(self, piece: _Piece, lost: Usage, least: Usage) -> _Piece:
        """The end of a reply with what it took: as the server reports it, else as an estimate."""
        if isinstance(piece, Text):
            return piece
        usage = piece.usage or Usage()
        if usage.estimated or not usage.input:
            usage = Usage(usage.input or least.input, usage.output, estimated=True)
        return replace(piece, usage=lost + self._priced(usage))

    async def close(self) -> None:
        """Closes all connections; the model cannot be used afterwards."""
        await self._client.close()

    async def _try(self, request: dict[str, Any], limits: Limits, ends: float) -> AsyncGenerator[_Piece]:
        """One request. Raises ModelError, but only while it has yielded nothing."""
        unshown = ""  # white space alone is no reply yet
        shown = False
        async with self._answered(request, limits, ends) as answer:
            while (more := await answer.text()) is not None:
                unshown += more
                if unshown and (shown or not unshown.isspace()):
                    yield Text(unshown)
                    unshown, shown = "", True
        broken = answer.broken()
        if broken is None:
            finish = _estimated(answer.finish(self.label), answer.written)
            if finish.reason == "stop" and not shown:
                raise EmptyReply("the reply was complete and empty")
            yield finish
        elif shown:
            counters.MODEL_ERRORS.add(self.label, "Cut")
            log.warning("the reply was cut", model=self.label, reason=str(broken))
            yield _estimated(answer.cut(self.label), answer.written)
        else:
            raise broken

    @asynccontextmanager
    async def _answered(self, request: dict[str, Any], limits: Limits, ends: float) -> AsyncIterator[Answer]:
        """Sends a request. The answer is closed on the way out, whatever happened."""
        first_by = min(asyncio.get_running_loop().time() + limits.first_chunk, ends)
        response = await self._sent(request, first_by)
        reads = response.http_response.aiter_bytes()
        pace = Pace(connection_of(response.http_response.stream), self._pauses)
        try:
            answer = Answer(
                reads, limits, first_by, self._failures, pace, keep_reasoning=self._keep_reasoning
            )
            yield answer
            await answer.drain()
        finally:
            await reads.aclose()
            await response.close()

    async def _sent(self, request: dict[str, Any], first_by: float) -> _Response:
        left_out = self._lacking
        while True:
            sent = {name: value for name, value in request.items() if name not in left_out}
            # As `extra_body` they go out as they are: the client's own walk through a conversation of twenty
            # messages, looking for types to convert, costs as much CPU as all the rest of the call.
            plain = {name: sent[name] for name in ("messages", "tools") if name in sent}
            rest = {name: value for name, value in sent.items() if name not in plain}
            try:
                async with asyncio.timeout_at(first_by):
                    call = self._create(**rest, messages=[], stream=True, extra_body=plain)
                    response: _Response = await call.__aenter__()
            except Exception as error:
                failure = self._failures.from_exception(error)
            else:
                # Only now: a refusal may quote a person, who must not take the tools from all others.
                self._lacking |= left_out
                return response
            refused = refused_parameter(failure, sent)
            if refused is None:
                raise failure  # out of the `except`, so that no foreign text hangs on it as its context
            log.warning("doing without", parameter=refused, model=self.label, reason=str(failure))
            left_out |= {refused}


class _Failures:
    """What came from outside -> our errors. Knows the server's name and the secrets to leave out."""

    def __init__(self, endpoint: Endpoint, server: str, redactor: Redactor) -> None:
        self._server = server
        self._model = endpoint.name
        self._longest_wait = endpoint.limits.retry_after
        self.redacted = redactor.text

    def from_exception(self, error: Exception) -> ModelError:
        """The one table of foreign exceptions."""
        cause = error.__cause__ or error
        server, said = self._server, self.redacted(f"{type(cause).__name__}: {cause}")
        match error:
            case ModelError():
                return error
            case openai.APIStatusError(status_code=status, body=body, message=message):
                return self._refused(status, body, message, retry_after(error.response.headers))
            case openai.APIConnectionError() if isinstance(cause, _UNUSABLE):
                return ModelMisconfigured(said, health=f"The model server {server} cannot be used: {said}.")
            case openai.APIConnectionError():
                detail = f"no connection to {server}: {said}"
                return ModelUnreachable(detail, health=f"The model server {server} cannot be reached.")
            case TimeoutError():
                detail = f"{server} did not go on in time"
                return ModelSilent(detail, health=f"The model server {server} is silent.")
            case ValueError() | TypeError():  # raised while the request was built: a lone surrogate, a NaN
                return BadRequest(f"the request could not be written: {said}")
            case _:  # httpx2.TransportError in mid-stream; aiohttp's own where the answer was not HTTP
                return BrokenReply(f"the answer of {server} broke off: {said}")

    def from_stream(self, error: dict[str, Any]) -> ModelError:
        """The error object that a server sent after it had begun with 200."""
        code = str(error.get("code", ""))
        status = int(code) if code.isdecimal() and 400 <= int(code) < 600 else None
        return self._refused(status, error, str(error.get("message", error)), None)

    def _refused(self, status: int | None, body: object, message: str, wait: float | None) -> ModelError:
        fields = body if isinstance(body, dict) else {}
        codes = [str(fields[key]) for key in ("code", "type") if fields.get(key)]
        text = (
            body if isinstance(body, str) else ""
        )  # Ollama: {"error": "text"}, which the client's message lacks
        says = self.redacted(" ".join([*codes, message, text]).strip())[:500]
        return understood(Refusal(status, says, self._server, self._model, wait), self._longest_wait)


# No later try can help these: the address itself is wrong.
_UNUSABLE = (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects, httpx2.LocalProtocolError)


def _estimated(finish: Finish, written: int) -> Finish:
    """An end that the server has not counted, with a guess at what was written."""
    if finish.usage and finish.usage.tokens:
        return finish
    guess = Usage(output=-(-written // estimate.BYTES_A_TOKEN), estimated=True)
    return replace(finish, usage=guess)


def _address(endpoint: Endpoint) -> tuple[httpx2.URL, tuple[str, str] | None]:
    """The base URL without its credentials, which no log of a client may show, and these by themselves."""
    try:
        url = httpx2.URL(endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI)
    except httpx2.InvalidURL as error:
        raise _unusable(f"its `base_url` is not a URL ({error})") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise _unusable("its `base_url` does not begin with http:// or https:// and a host")
    auth = (url.username, url.password) if url.userinfo else None
    return url.copy_with(username=None, password=None), auth


def _http_client(auth: tuple[str, str] | None, *, trust_env: bool) -> httpx2.AsyncClient:
    """On aiohttp, which hands over all that one read brought at a third of the default's CPU."""
    client = openai.DefaultAioHttpClient(
        auth=auth, trust_env=trust_env, verify=_certificates(), event_hooks={"response": [keep_brief]}
    )
    # There is no public way to say which of the open connections are taken.
    for transport in filter(None, (client._transport, *client._mounts.values())):
        transport.client = partial(_session, transport.limits)  # type: ignore[attr-defined]
    return client


def _session(limits: httpx2.Limits) -> aiohttp.ClientSession:
    connector = NewestFirst(limits.max_connections or 0, limits.keepalive_expiry or 0, _certificates())
    return aiohttp.ClientSession(connector=connector)


@cache  # reading the machine's certificates takes 20 ms and some memory
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _key(endpoint: Endpoint) -> str:
    key = (endpoint.api_key or _NO_KEY).strip()
    if not (key.isascii() and key.isprintable()):
        raise _unusable("its `api_key` holds characters that no key has")
    return key


def _unusable(why: str) -> ModelMisconfigured:
    return ModelMisconfigured(why, health=f"The model cannot be used: {why}.")
