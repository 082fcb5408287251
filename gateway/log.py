"""structlog: for people on a terminal, JSON lines otherwise; secrets never."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "[secret]"
# Shapes of tokens that we were never told of: OpenAI-like keys, Telegram bot tokens, bearer headers.
_SHAPES = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}|\b\d{8,10}:[A-Za-z0-9_-]{35}\b|(?<=Bearer )[A-Za-z0-9._~+/=-]{8,}"
)


class Redactor:
    """A processor that takes every known secret, and whatever looks like one, out of a log entry."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
        return {key: self._clean(value) for key, value in entry.items()}

    def _clean(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self._clean(key): self._clean(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self._clean(inner) for inner in value]
            case int() | float() | None:
                return value
        return self.text(repr(value))

    def text(self, text: str) -> str:
        """The text with every secret masked."""
        if self._known:
            text = self._known.sub(MASK, text)
        return _SHAPES.sub(MASK, text)


def _json(logger: WrappedLogger, method: str, entry: EventDict) -> str:
    try:
        return msgspec.json.encode(entry).decode()
    except UnicodeEncodeError:
        return ascii(dict(entry))


def configure(secrets: Iterable[str] = (), *, level: int = logging.INFO, human: bool | None = None) -> None:
    """Send all logs, foreign ones included, to stderr. `human`: None looks whether stderr is a terminal."""
    human = sys.stderr.isatty() if human is None else human
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human, key="time"),
        structlog.processors.format_exc_info,
        Redactor(secrets),
    ]
    final: Processor = _pretty() if human else _json
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, final],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("asyncio", "aiohttp", "httpx", "httpx2", "httpcore", "openai", "markdown_it"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # httpx logs URLs, which may hold tokens, at INFO
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )


def _pretty() -> Processor:
    return structlog.dev.ConsoleRenderer(timestamp_key="time", pad_event_to=28, pad_level=False)
