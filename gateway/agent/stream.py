"""The bytes of a chat completion -> its text, its tool calls and its end.

Pure: bytes in, values out. Reads the event stream of Chat Completions, and also the whole JSON object that
servers send which ignore `stream`. The client's own decoder costs 110 to 185 us a chunk; this one 3.
"""

import json
from typing import Any

import msgspec

from gateway.agent import call_parts
from gateway.agent.call_parts import CallPart, CallParts, FunctionPart
from gateway.agent.reply import Call, Finish, FinishReason
from gateway.agent.thinking import Thinking
from gateway.redaction import known
from session.events import Usage

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "filtered",
    "safety": "filtered",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_LONGEST = 4 << 20  # characters of text, thoughts and arguments of one reply: no model writes so much
_IGNORED_FIELDS = (b":", b"event:", b"id:", b"retry:")


class _ContentPart(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None


class _Delta(msgspec.Struct):
    content: str | list[_ContentPart] | None = None  # a list: reasoning models of Mistral
    refusal: str | None = None
    reasoning_content: Any = None  # of any shape, like `usage`: nobody is shown it
    reasoning: Any = None
    tool_calls: list[CallPart] | None = None
    function_call: FunctionPart | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None  # instead of `delta` in a reply that is no stream
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: Any = None  # of any shape: a strange one is not worth losing a reply for
    error: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


_chunk_decoder = msgspec.json.Decoder(_Chunk)


class Decoder:
    """Reads one reply. Nothing raises: what is wrong is in `fault` or `error`, after the text before it.

    What the model thinks is not part of the text; with `keep_reasoning` the end brings it.
    """

    def __init__(self, longest_line: int, *, keep_reasoning: bool = False) -> None:
        self.chunks = 0  # pieces of JSON understood so far: what counts as progress
        self.done = False  # [DONE] was read, or the whole JSON object
        self.finished = False  # `finish_reason` was read
        self.fault: str | None = None  # why this is not a chat completion
        self.error: dict[str, Any] | None = None  # the error object that the server sent instead of more
        self._longest_line = longest_line
        self._unread: list[bytes] = []  # the beginning of a line
        self._unread_size = 0
        self._is_stream: bool | None = None  # None until the first byte that is no white space
        self._text: list[str] = []
        self._half = ""  # a high surrogate whose other half is in the next chunk
        self._thinking = Thinking(keep_reasoning)
        self._size = 0  # characters of text so far
        self._calls = CallParts()
        self._reason = ""
        self._model = ""
        self._usage: Any = None

    @property
    def over(self) -> bool:
        return self.done or self.fault is not None or self.error is not None

    def feed(self, data: bytes) -> str:
        """More bytes, cut anywhere; returns the text that they complete. What follows the end is ignored."""
        if self.over:
            return ""
        if self._is_stream is None:
            data = b"".join((*self._unread, data)).lstrip(b"\xef\xbb\xbf \t\r\n")
            self._unread, self._unread_size = [], 0
            if len(data) == 0:
                return ""
            self._is_stream = not data.startswith((b"{", b"["))
        self._unread.append(data)
        self._unread_size += len(data)
        if self._is_stream and b"\n" in data:
            *lines, rest = b"".join(self._unread).split(b"\n")
            self._unread, self._unread_size = [rest], len(rest)
            for line in lines:
                self._line(line)
                if self.over:
                    break
        if self._unread_size > self._longest_line and not self.over:
            self.fault = f"more than {self._longest_line} bytes without an end of line"
        return self._shown(self._take_text())

    def end(self) -> str:
        """No more bytes will come; returns the text of what was left."""
        rest = b"".join(self._unread)
        self._unread = []
        if not self.over and rest.strip():
            if self._is_stream:
                self._line(rest)
            else:
                self._json(rest)
                self.done = True
                # A whole reply is complete by itself; several servers leave its finish_reason out.
                self.finished = self.finished or self.chunks > 0
        return self._shown(self._take_text() + self._replaced_half())

    @property
    def written(self) -> int:
        """How many characters the model has produced so far, thoughts and tool calls included."""
        return self._size + self._thinking.size + self._thinking.held + self._calls.size

    def finish(self, label: str) -> Finish:
        """How the reply ended; `label` stands in where the server did not name its model."""
        reason = _REASONS.get(self._reason, "stop")
        calls: tuple[Call, ...] = ()
        if reason in ("stop", "tool_calls"):  # several local servers say "stop" after tool calls
            calls = self._calls.whole()
            reason = "tool_calls" if calls else "stop"
        return Finish(reason, calls, self._model or label, self._counted(), self._thoughts())

    @property
    def nameless_calls(self) -> bool:
        """A call that no later request could repeat to the server: the reply is not to be used."""
        return self._calls.nameless

    def cut(self, label: str) -> Finish:
        """The end of a reply that broke off."""
        return Finish("cut", (), self._model or label, self._counted(), self._thoughts())

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                self.done = True
            elif data:
                self._json(data)
        elif line.startswith(b"{"):  # an error, put into the stream without its "data:"
            self._json(line)
        elif line.strip() and not line.startswith(_IGNORED_FIELDS):
            self.fault = f"not a line of an event stream: {_quoted(line)}"

    def _json(self, data: bytes) -> None:
        try:
            chunk = _decoded(data)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            self.fault = f"not a chunk of a chat completion ({error}): {_quoted(data)}"
            return
        if chunk.error:
            self.error = chunk.error if isinstance(chunk.error, dict) else {"message": str(chunk.error)}
            return
        self.chunks += 1
        if chunk.model:
            self._model = chunk.model
        if chunk.usage:
            self._usage = chunk.usage
        if chunk.choices:  # null or empty: a usage chunk, or a server that lost its answer
            self._choice(chunk.choices[0])

    def _choice(self, choice: _Choice) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            if delta.content:
                self._text.append(_text_of(delta.content))
            if delta.refusal:
                self._text.append(delta.refusal)
            if (thought := delta.reasoning_content or delta.reasoning) and isinstance(thought, str):
                self._thinking.thought(thought)
            if delta.tool_calls:
                self._calls.add(delta.tool_calls)
            if delta.function_call:
                self._calls.add([CallPart(index=0, function=delta.function_call)])
            if self._calls.too_many:
                self.fault = f"more than {call_parts.MOST} tool calls in one reply"
            elif self.written > _LONGEST:
                self.fault = f"a reply of more than {_LONGEST} characters"
        if choice.finish_reason:
            self._reason = choice.finish_reason
            self.finished = True

    def _take_text(self) -> str:
        if not self._text:
            return ""
        text = self._half + "".join(self._text)
        self._text, self._half = [], ""
        if not text.isascii() and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _well_formed(text)

    def _shown(self, text: str) -> str:
        thinking = self._thinking
        if not thinking.over:
            text = thinking.shown(text)
            if self.finished or self.over:
                text += thinking.rest()
        self._size += len(text)
        return text

    def _thoughts(self) -> str:
        return _well_formed("".join(self._thinking.thoughts))

    def _replaced_half(self) -> str:
        half, self._half = self._half, ""
        return "\ufffd" if half else ""

    def _counted(self) -> Usage | None:
        if self._usage is None:
            return None
        try:
            counted = msgspec.convert(self._usage, _Usage)
        except (msgspec.ValidationError, UnicodeEncodeError):  # the second: a surrogate in a name
            return None
        return Usage(counted.prompt_tokens, counted.completion_tokens)


def _decoded(data: bytes) -> _Chunk:
    try:
        return _chunk_decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # msgspec refuses escaped halves of a surrogate pair, which servers that count in UTF-16 send.
        return msgspec.convert(json.loads(data), _Chunk)


def _quoted(data: bytes) -> str:
    """The beginning of something unreadable; a server may have repeated the key in it."""
    return repr(known.beginning(data.decode("utf-8", "replace"), 80))


def _text_of(content: str | list[_ContentPart]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text or "" for part in content if part.type == "text")


def _well_formed(text: str) -> str:
    """Joins surrogate pairs; a lone one becomes U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
