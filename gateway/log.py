"""structlog: for people on a terminal, JSON lines otherwise; secrets never."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.redaction import MASK, Redactor, known
from session.events import now

__all__ = ["MASK", "Redactor", "configure", "learn", "recent"]

_FIRST = ("time", "level", "event")
# Control characters as their pictures, such as the one of Escape; C1 and lone surrogates have none.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {
    0x7F: 0x2421,
    **dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD),
}
# What journald takes for the priority of a line; it is not part of the message.
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_KEPT = 20
_PIECE = 1000  # characters at most that are written at once: so much a pipe takes that takes anything
_PATIENCE = 1.0  # seconds for whoever reads the log to go on; once, until then
_TROUBLE = {"warning", "error", "critical"}

learn = known.learn  # of secrets that came with a configuration that was read again
_recent: deque[dict[str, Any]] = deque(maxlen=_KEPT)


def recent(most: int) -> list[dict[str, Any]]:
    """The last warnings and errors of this process, oldest first, as they were logged."""
    return list(_recent)[-most:]


def _redacted(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    """Take every known secret, and whatever looks like one, out of a log entry."""
    return {key: known.value(value) for key, value in entry.items()}


def _remembered(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    if entry.get("level") in _TROUBLE:
        kept = {key: value for key, value in entry.items() if key != "exception" and key[0] != "_"}
        _recent.append({**kept, "time": now()})
    return entry


def _ordered(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    first = {key: entry.pop(key) for key in _FIRST if key in entry}
    return {**first, **entry}


def _json(logger: WrappedLogger, method: str, entry: EventDict) -> str:
    try:
        return msgspec.json.encode(entry).decode()
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(entry)  # lone surrogates become escapes, and integers may be of any size


def _for_journald(logger: WrappedLogger, method: str, entry: EventDict) -> str:
    return f"<{_PRIORITY.get(entry.get('level', ''), 6)}>{_json(logger, method, entry)}"


def _journald_reads(fd: int) -> bool:
    """Whether what is written there goes to the journal (`JOURNAL_STREAM`, systemd.exec(5))."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _harmless(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    """What people on the network wrote must neither steer the terminal nor look like an entry of its own.

    Of texts alone: structlog shows all other values by their `repr`, and quotes texts with a newline.
    """
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = value.translate(_PICTURES)
    entry["event"] = str(entry["event"]).replace("\n", "\u240a")
    return entry


class _Handler(logging.StreamHandler[TextIO]):
    """Writes for as long as somebody reads.

    A pager may stand still, and so may a terminal after Ctrl-S: then lines are left out, and the gateway goes
    on, for it would wait in the middle of its event loop.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._left_out = 0
        self._torn = False  # whether the last line has no end
        self._poll: select.poll | None = None
        try:
            fd = stream.fileno()
        except OSError:
            return  # it is none of the system's
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or as much of it as is taken."""
        try:
            text = f"{chr(10) * self._torn}{self.format(record)}{self.terminator}"
            for at in range(0, len(text), _PIECE):
                if not self._taken():
                    self._left_out += 1
                    self._torn = self._torn or at > 0
                    return
                self.stream.write(text[at : at + _PIECE])
                self.flush()
        except Exception:
            self.handleError(record)
            return
        self._torn = False
        if left_out := self._left_out:
            self._left_out = 0
            structlog.get_logger(__name__).warning("nobody read the log for a while", left_out=left_out)

    def _taken(self) -> bool:
        if self._poll is None:
            return True
        return bool(self._poll.poll(0 if self._left_out else _PATIENCE * 1000))


def configure(secrets: Iterable[str] = (), *, level: int = logging.INFO, human: bool | None = None) -> None:
    """Send all logs, foreign ones included, to stderr. `human`: None looks whether stderr is a terminal."""
    learn(secrets)
    learn(os.environ.get(name) for name in _PROXIES)
    human = sys.stderr.isatty() if human is None else human
    line = _for_journald if _journald_reads(2) else _json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human, key="time"),
        structlog.processors.format_exc_info,
        _redacted,
        _remembered,
    ]
    final: list[Processor] = [_harmless, _pretty()] if human else [_ordered, line]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
    )
    handler = _Handler(sys.stderr)
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
    logging.captureWarnings(True)
    # What nobody caught would be printed as it is, with whatever secrets its text has.
    sys.excepthook = lambda kind, error, trace: _crashed(error, "the main thread")
    threading.excepthook = lambda args: _crashed(args.exc_value, "a thread")
    sys.unraisablehook = lambda args: _crashed(args.exc_value, "a clean-up")


def _crashed(error: BaseException | None, where: str) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    structlog.get_logger(__name__).critical(f"{where} broke", exc_info=error)


def _pretty() -> Processor:
    return structlog.dev.ConsoleRenderer(timestamp_key="time", pad_event_to=28, pad_level=False)
