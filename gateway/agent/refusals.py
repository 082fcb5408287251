"""A server's refusal (status, code, message) -> the error it means.

One table by what the text says, one by the status. The texts are those that OpenAI, Azure, Anthropic,
Gemini, Mistral, Groq, OpenRouter, vLLM, llama.cpp, LM Studio and Ollama are known to send.
"""

import email.utils
import re
import time
from collections.abc import Mapping

import msgspec

from gateway.agent.model_errors import (
    BadRequest,
    ContentRefused,
    ContextTooLong,
    ModelError,
    ModelMisconfigured,
    ModelServerFault,
    QuotaExhausted,
    RateLimited,
)


class Refusal(msgspec.Struct, frozen=True):
    """What a server said instead of answering."""

    status: int | None  # None: an error object inside a stream that began with 200
    says: str  # code, type and message, already without secrets
    server: str  # host and port
    model: str
    retry_after: float | None = None


def _says(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


# The first row whose status and text both match decides. None stands for "inside a stream".
_BY_TEXT: tuple[tuple[frozenset[int | None], re.Pattern[str], type[ModelError]], ...] = (
    (
        # By code, not by "exceeded your current quota": Gemini says that of a limit per minute, too.
        frozenset({400, 403, 429, None}),
        _says(r"insufficient_quota|billing_(not_active|hard_limit)|credit balance is too low"),
        QuotaExhausted,
    ),
    (
        # llama.cpp has answered 500 here, OpenAI answers 429 to one request above the limit per minute.
        frozenset({400, 413, 422, 429, 500, None}),
        _says(
            r"context_length|context[ _]size|context (length|window)|maximum context"
            r"|(prompt|input) is too long|input token count|reduce the length|too many (input )?tokens"
            r"|request too large"
        ),
        ContextTooLong,
    ),
    (
        frozenset({400, 403, 422, None}),
        _says(r"content_(filter|policy)|content management policy|moderation|was flagged"),
        ContentRefused,
    ),
    (
        # LiteLLM without a database knows no key but its own, and says so of any other.
        frozenset({400, 422}),
        _says(
            r"api[ _]key|no_db_connection|model_not_found|invalid model"
            r"|model .{0,80}(does not exist|not found)"
        ),
        ModelMisconfigured,
    ),
)

_BY_STATUS: Mapping[int | None, type[ModelError]] = {
    400: BadRequest,
    402: QuotaExhausted,
    408: ModelServerFault,
    409: ModelServerFault,  # a lock that was not had in time
    413: ContextTooLong,
    422: BadRequest,
    429: RateLimited,
    None: ModelServerFault,
}

_ADVICE = {
    401: "check OPENAI_API_KEY or the model's `api_key`",
    403: "check what the key is allowed to use",
    404: "check the model's `name` and `base_url`",
}


def understood(refusal: Refusal, longest_wait: float) -> ModelError:
    """The error that a refusal means; a wait over `longest_wait` seconds is not to be tried again."""
    kind = _kind(refusal)
    status = "in the stream" if refusal.status is None else str(refusal.status)
    detail = f"{refusal.server} answered {status}: {refusal.says}"
    if kind is RateLimited:
        return _rate_limited(detail, refusal.retry_after, longest_wait)
    if kind is ModelMisconfigured:
        advice = _ADVICE.get(refusal.status or 0, "check the model's `base_url`, `name` and `api_key`")
        health = f"The model server {refusal.server} refuses {refusal.model!r} ({status}): {advice}."
        return kind(detail, health=health)
    if kind is QuotaExhausted:
        return kind(detail, health=f"The account at {refusal.server} has no quota left ({status}).")
    if kind is ModelServerFault:
        return _server_fault(detail, refusal, longest_wait)
    return kind(detail)


def _kind(refusal: Refusal) -> type[ModelError]:
    for statuses, pattern, kind in _BY_TEXT:
        if refusal.status in statuses and pattern.search(refusal.says):
            return kind
    if refusal.status is not None and refusal.status >= 500:
        return ModelServerFault
    return _BY_STATUS.get(refusal.status, ModelMisconfigured)


def _rate_limited(detail: str, wait: float | None, longest_wait: float) -> ModelError:
    if wait is None:
        return RateLimited(detail)
    public = f"The AI model has too much to do at the moment. Please try again in {spoken(wait)}."
    return RateLimited(detail, public=public, retry=wait <= longest_wait, retry_after=wait)


def _server_fault(detail: str, refusal: Refusal, longest_wait: float) -> ModelError:
    wait = refusal.retry_after
    health = None
    if refusal.status in (502, 503, 504):
        health = f"The model server {refusal.server} is not available ({refusal.status})."
    if wait is None:
        return ModelServerFault(detail, health=health)
    public = f"The AI model is not available at the moment. Please try again in {spoken(wait)}."
    again = wait <= longest_wait
    return ModelServerFault(detail, public=public, health=health, retry=again, retry_after=wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait, never negative; None if it does not, or not readably.

    `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3), or OpenAI's `retry-after-ms`.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if seconds == seconds:  # not NaN
            return max(0.0, seconds)
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    if date is None:
        return None
    try:
        return max(0.0, email.utils.mktime_tz(date) - time.time())
    except (ValueError, OverflowError):
        return None


def spoken(seconds: float) -> str:
    """A duration for a person, rounded up: "45 seconds", "3 minutes", "2 hours"."""
    if seconds > 48 * 3600:
        return "a few days"
    for size, word in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds > size or size == 1:
            count = max(1, -int(-seconds // size))
            return f"{count} {word}" if count == 1 else f"{count} {word}s"
    raise AssertionError("the last row always answers")
