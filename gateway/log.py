"""structlog: for people on a terminal, JSON lines otherwise; secrets never."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "[secret]"
# Shapes of tokens that we were never told of: OpenAI-like keys, Telegram bot tokens (in a URL they stand
# directly behind "bot"), bearer headers, and what a URL calls a key or a token.
_SHAPES = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}"
    r"|(?<!\d)\d{8,10}:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}"
    r"|(?:(?<=[?&#]token=)|(?<=[?&#]key=)|(?<=[?&]api_key=))[^&\s'\"]+"
)
_FIRST = ("time", "level", "event")
# Control characters as their pictures, such as the one of Escape; C1 and lone surrogates have none.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {
    0x7F: 0x2421,
    **dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD),
}


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
                return {self.text(str(key)): self._clean(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self._clean(inner) for inner in value]
            case float() if not math.isfinite(value):
                return str(value)  # JSON has no NaN
            case int() | float() | None:
                return value
        return self.text(repr(value))

    def text(self, text: str) -> str:
        """The text with every secret masked."""
        if self._known:
            text = self._known.sub(MASK, text)
        return _SHAPES.sub(MASK, text)


def _ordered(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    first = {key: entry.pop(key) for key in _FIRST if key in entry}
    return {**first, **entry}


def _json(logger: WrappedLogger, method: str, entry: EventDict) -> str:
    try:
        return msgspec.json.encode(entry).decode()
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(entry)  # lone surrogates become escapes, and integers may be of any size


def _harmless(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    """What people on the network wrote must neither steer the terminal nor look like an entry of its own.

    Of texts alone: structlog shows all other values by their `repr`, and quotes texts with a newline.
    """
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = value.translate(_PICTURES)
    entry["event"] = str(entry["event"]).replace("\n", "\u240a")
    return entry


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
    final: list[Processor] = [_harmless, _pretty()] if human else [_ordered, _json]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("asyncio", "aiohttp", "httpx", "httpx2", "httpcore", "openai", "markdown_it"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # httpx logs URLs, which may hold tokens, at INFO
    logging.getLogger("telegram").setLevel(logging.CRITICAL)  # it prints whole HTML error pages at ERROR
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )


def _pretty() -> Processor:
    return structlog.dev.ConsoleRenderer(timestamp_key="time", pad_event_to=28, pad_level=False)
