"""One answer of a server while it is being read: its deadlines, and how it ended."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

from gateway.agent.endpoint import Limits
from gateway.agent.model_errors import BrokenReply, GarbledReply, ModelError
from gateway.agent.pace import Pace
from gateway.agent.reply import Finish
from gateway.agent.stream import Decoder

# A connection can be used again only if its answer was read to the end, which follows [DONE] at once.
_DRAIN = 0.1


class Failures(Protocol):
    """Turns what came from outside into our errors (the model does: it knows server and secrets)."""

    def from_exception(self, error: Exception) -> ModelError: ...

    def from_stream(self, error: dict[str, Any]) -> ModelError: ...

    def redacted(self, text: str) -> str: ...


class Answer:
    """`first_by` is when its first chunk must be there, on the event loop's clock."""

    def __init__(
        self,
        reads: AsyncIterator[bytes],
        limits: Limits,
        first_by: float,
        failures: Failures,
        pace: Pace,
        *,
        keep_reasoning: bool = False,
    ) -> None:
        self._reads = reads
        self._limits = limits
        self._deadline = first_by
        self._failures = failures
        self._pace = pace
        self._decoder = Decoder(limits.line, keep_reasoning=keep_reasoning)
        self._ended = False  # the bytes have ended, or failed
        self._failure: ModelError | None = None

    async def text(self) -> str | None:
        """What one read brought, perhaps ""; None when no more will come."""
        decoder = self._decoder
        if self._ended or decoder.over:
            return None
        try:
            async with asyncio.timeout_at(self._deadline):
                data = await anext(self._reads, None)
        except Exception as error:
            self._ended = True
            self._failure = self._failures.from_exception(error)
            return None
        before = decoder.chunks
        if data is None:
            self._ended = True
            return decoder.end()
        text = decoder.feed(data)
        now = asyncio.get_running_loop().time()
        # Only chunks count as progress: some proxies send ": ping" for ever.
        if decoder.chunks > before:
            limits = self._limits
            patience = limits.after_finish if decoder.finished else limits.between_chunks
            self._deadline = now + patience
        if text and not decoder.finished:
            self._pace.shown(now)
        return text

    def broken(self) -> ModelError | None:
        """Why this is not a complete reply; None if it is one."""
        decoder = self._decoder
        if decoder.finished:  # whatever goes wrong after it (a missing [DONE], say) takes nothing away
            return GarbledReply("a tool call without a name") if decoder.nameless_calls else None
        if decoder.error is not None:
            return self._failures.from_stream(decoder.error)
        if decoder.fault is not None:
            return GarbledReply(self._failures.redacted(decoder.fault))
        if self._failure is not None:
            return self._failure
        if decoder.chunks == 0:
            return BrokenReply("the answer ended before its first chunk")
        return BrokenReply("the stream ended without finish_reason")

    def finish(self, label: str) -> Finish:
        return self._decoder.finish(label)

    @property
    def written(self) -> int:
        """How many characters the model has produced so far."""
        return self._decoder.written

    def cut(self, label: str) -> Finish:
        return self._decoder.cut(label)

    async def drain(self) -> None:
        """Reads the little that may follow the reply, so that its connection serves the next one, too."""
        try:
            async with asyncio.timeout(_DRAIN):
                while not self._ended and await anext(self._reads, None) is not None:
                    pass
        except Exception:
            self._ended = True  # only the connection is lost, and it is closed with the answer
