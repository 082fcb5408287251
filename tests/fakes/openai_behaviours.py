"""What `OpenAIServer` can answer with: one small value for each thing that real servers do."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

Event = dict[str, Any] | str  # a chunk, or the text after "data: "
Calls = list[tuple[str, dict[str, Any] | str]]


class Exchange(Protocol):
    """One request that is being answered; the server implements it."""

    release: asyncio.Event

    async def event(self, event: Event) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def end(self) -> None: ...
    async def whole(self, status: int, body: bytes, headers: dict[str, str]) -> None: ...
    def abort(self, reset: bool = False) -> None: ...
    def next(self, behaviour: "Behaviour") -> None: ...


class Behaviour(Protocol):
    async def answer(self, exchange: Exchange) -> None: ...


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "fake-1",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}


def _text(args: dict[str, Any] | str) -> str:
    return args if isinstance(args, str) else json.dumps(args)


def call_fragments(calls: Calls) -> list[dict[str, Any]]:
    """The chunks of tool calls: the name first, the arguments in pieces of 7 characters."""
    chunks = []
    for index, (name, args) in enumerate(calls):
        text = _text(args)
        begin = {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        chunks.append(chunk({"tool_calls": [{"index": index, **begin}]}))
        for at in range(0, len(text), 7):
            part = {"index": index, "function": {"arguments": text[at : at + 7]}}
            chunks.append(chunk({"tool_calls": [part]}))
    return chunks


@dataclass(frozen=True)
class Say:
    """Streams a text, `size` characters a chunk, `delay` seconds before each."""

    text: str
    size: int = 4
    delay: float = 0.0
    finish: str | None = "stop"
    done: bool = True

    def events(self) -> list[Event]:
        events: list[Event] = [chunk({"role": "assistant", "content": ""})]
        for at in range(0, len(self.text), self.size):
            events.append(chunk({"content": self.text[at : at + self.size]}))
        if self.finish is not None:
            events.append(chunk({}, self.finish))
            events.append({**chunk({}), "choices": [], "usage": USAGE})
        if self.done:
            events.append("[DONE]")
        return events

    async def answer(self, exchange: Exchange) -> None:
        for event in self.events():
            if self.delay:
                await asyncio.sleep(self.delay)
            await exchange.event(event)
        await exchange.end()


def Length(text: str) -> Say:
    """Ran into the limit of tokens."""
    return Say(text, finish="length")


def Filtered(text: str) -> Say:
    """Stopped by the provider's filter."""
    return Say(text, finish="content_filter")


def NoFinish(text: str = "") -> Say:
    """Ends properly, but for the missing `finish_reason`."""
    return Say(text, finish=None)


def NoDone(text: str) -> Say:
    """Complete, but for the missing [DONE]."""
    return Say(text, done=False)


def EmptyReply() -> Say:
    """Complete, and nothing in it."""
    return Say("")


@dataclass(frozen=True)
class CallTools:
    """Asks for tools: (name, arguments as an object or as raw text). `then` answers the next request."""

    calls: Calls
    then: Behaviour | None = None
    text: str = ""  # said before
    finish: str = "tool_calls"

    def events(self) -> list[Event]:
        before: list[Event] = [chunk({"content": self.text})] if self.text else []
        return [*before, *call_fragments(self.calls), chunk({}, self.finish), "[DONE]"]

    async def answer(self, exchange: Exchange) -> None:
        if self.then is not None:
            exchange.next(self.then)
        await Events(self.events()).answer(exchange)


@dataclass(frozen=True)
class Events:
    """Any events: chunks, or texts to stand after "data: ". The stream ends properly after them."""

    events: list[Event]

    async def answer(self, exchange: Exchange) -> None:
        for event in self.events:
            await exchange.event(event)
        await exchange.end()


def ChoicesNull(count: int = 3) -> Events:
    return Events([{**chunk({}), "choices": None}] * count + ["[DONE]"])


def ChoicesEmpty(count: int = 3) -> Events:
    return Events([{**chunk({}), "choices": []}] * count + ["[DONE]"])


@dataclass(frozen=True)
class BrokenAfter:
    """Sends the first `after` events of `of`, then does what the subclass says."""

    after: int = 0
    of: Say | CallTools = field(default_factory=lambda: Say("Hello, this is a reply."))

    async def answer(self, exchange: Exchange) -> None:
        for event in self.of.events()[: self.after]:
            await exchange.event(event)
        await self.break_off(exchange)

    async def break_off(self, exchange: Exchange) -> None:
        raise NotImplementedError


class CutAfter(BrokenAfter):
    """The connection is closed in the middle of the body."""

    async def break_off(self, exchange: Exchange) -> None:
        await exchange.write(b"")  # the head, so that it is the body that is cut
        exchange.abort()


class EndAfter(BrokenAfter):
    """The body ends properly, too early."""

    async def break_off(self, exchange: Exchange) -> None:
        await exchange.write(b"")
        await exchange.end()


class BadJson(BrokenAfter):
    async def break_off(self, exchange: Exchange) -> None:
        await exchange.event('{"choices":[{"delta":{"content":"ga')
        await exchange.end()


class HtmlInStream(BrokenAfter):
    async def break_off(self, exchange: Exchange) -> None:
        await exchange.write(b"<html><body>502 Bad Gateway</body></html>\n")
        await exchange.end()


@dataclass(frozen=True)
class ErrorInStream(BrokenAfter):
    error: dict[str, Any] = field(default_factory=lambda: {"message": "overloaded", "type": "server_error"})

    async def break_off(self, exchange: Exchange) -> None:
        await exchange.event({"error": self.error})
        await exchange.end()


class Stall(BrokenAfter):
    """Silent until released or left; then the rest."""

    async def break_off(self, exchange: Exchange) -> None:
        await exchange.write(b"")
        await exchange.release.wait()
        for event in self.of.events()[self.after :]:
            await exchange.event(event)
        await exchange.end()


class PingForEver(BrokenAfter):
    """Comments every 10 ms and nothing else, until left."""

    async def break_off(self, exchange: Exchange) -> None:
        while True:
            await exchange.write(b": ping\n\n")
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Hang:
    """No answer at all until released; then `then`."""

    then: Behaviour = field(default_factory=lambda: Say("At last."))

    async def answer(self, exchange: Exchange) -> None:
        await exchange.release.wait()
        await self.then.answer(exchange)


@dataclass(frozen=True)
class Reset:
    """The connection is reset instead of an answer."""

    async def answer(self, exchange: Exchange) -> None:
        exchange.abort(reset=True)


@dataclass(frozen=True)
class Status:
    code: int
    body: Any = None  # JSON, or text as it is; None: an error object like OpenAI's
    headers: dict[str, str] = field(default_factory=dict)

    async def answer(self, exchange: Exchange) -> None:
        body = {"error": {"message": f"status {self.code}"}} if self.body is None else self.body
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        await exchange.whole(self.code, data, {"Content-Type": "application/json", **self.headers})


@dataclass(frozen=True)
class Html200:
    async def answer(self, exchange: Exchange) -> None:
        page = b"<!DOCTYPE html>\n<html><body>Sign in to continue</body></html>\n"
        await exchange.whole(200, page, {"Content-Type": "text/html; charset=utf-8"})


@dataclass(frozen=True)
class WholeJson:
    """Ignores `stream: true`."""

    text: str | None
    calls: Calls = field(default_factory=list)
    finish: str | None = "stop"

    def body(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{index}",
                    "type": "function",
                    "function": {
                        "name": name,
                        "arguments": args if isinstance(args, str) else json.dumps(args),
                    },
                }
                for index, (name, args) in enumerate(self.calls)
            ]
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return {
            "id": "1",
            "object": "chat.completion",
            "model": "fake-1",
            "choices": [choice],
            "usage": USAGE,
        }

    async def answer(self, exchange: Exchange) -> None:
        data = json.dumps(self.body(), indent=1, ensure_ascii=False).encode()
        await exchange.whole(200, data, {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Raw:
    """A stream of exactly these bytes, each item a write of its own."""

    parts: list[bytes]

    async def answer(self, exchange: Exchange) -> None:
        for part in self.parts:
            await exchange.write(part)
            await asyncio.sleep(0)
        await exchange.end()


def Trickle(text: str) -> Raw:
    """A good stream, one byte a write: every line and every character is cut."""
    events = Say(text).events()
    data = b"".join(encoded(event) for event in events)
    return Raw([data[at : at + 1] for at in range(len(data))])


def encoded(event: Event) -> bytes:
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n"
