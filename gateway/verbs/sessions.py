"""`lunar sessions`: look at the transcripts, with or without a running daemon."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway import ask, config_file
from gateway.errors import CannotCreate, Held, NoSuchSession, NotRunning, Unreadable
from session import ids, listing
from session.errors import SessionError, StoreLocked
from session.events import Assistant, Event, System, ToolCall, ToolResult, Unknown, User
from session.ids import SessionId
from session.lock import DirectoryLock
from session.transcript import Report, Transcript

_PAGE = 256
_LONGEST_VALUE = 500  # characters of a tool's arguments or result
_UNFINISHED = ("cut", "stopped", "length", "filtered")

# What could command a terminal: C0 without tab and newline, DEL, C1, what turns the direction of text
# around, and lone surrogates, which cannot be written at all.
_CONTROLS = [
    *range(0x09),
    *range(0x0B, 0x20),
    *range(0x7F, 0xA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]
_HARMLESS = dict.fromkeys([*_CONTROLS, *range(0xD800, 0xE000)], "\ufffd")
_ESCAPED = {code: f"\\u{code:04x}" for code in _HARMLESS if code >= 0x7F}  # JSON has the others escaped


def list_(config: str | None, as_json: bool) -> int:
    """Print every session, latest first."""
    data_dir = config_file.load(config).data_dir
    with _disk():
        found = sorted(listing.entries(data_dir), key=lambda entry: -entry.modified)
    if as_json:
        for entry in found:
            _print_json(session=entry.session, bytes=entry.size, modified=_iso(entry.modified))
        return 0
    if not found:
        print(f"No sessions in {data_dir}.", file=sys.stderr)
    width = max((len(entry.session) for entry in found), default=0)
    for entry in found:
        when = datetime.fromtimestamp(entry.modified).astimezone().strftime("%Y-%m-%d %H:%M")
        print(f"{_printable(entry.session):<{width}}  {when}  {_size(entry.size):>9}")
    return 0


def show(config: str | None, session: str, as_json: bool) -> int:
    """Print one transcript; raises `NoSuchSession`, `Unreadable`."""
    data_dir = config_file.load(config).data_dir
    with _disk():
        for event, line in _events(_path(data_dir, _find(data_dir, session))):
            if as_json:
                print(line.decode("utf-8", "replace").translate(_ESCAPED))
            else:
                print(_printable(_readable(event)))
    return 0


def verify(config: str | None, sessions: list[str], as_json: bool) -> int:
    """Read every line of every transcript; exits 1 where one is damaged. Raises `NoSuchSession`."""
    data_dir = config_file.load(config).data_dir
    with _disk():
        names = [_find(data_dir, name) for name in sessions]
        names = names or [entry.session for entry in listing.entries(data_dir)]
    damaged = 0
    for name in sorted(names):
        try:
            report = _report(_path(data_dir, name))
        except OSError as error:
            damaged += 1
            print(f"lunar: {_printable(name)}: cannot be read: {error.strerror or error}", file=sys.stderr)
            continue
        damaged += bool(report.bad)
        if as_json:
            _print_json(session=name, **report._asdict())
        elif report.bad or report.torn or sessions:
            print(f"{_printable(name)}: {_verdict(report)}")
    if not as_json:
        print(f"{_count(len(names), 'session')}, {damaged} damaged")
    return 1 if damaged else 0


def delete(config: str | None, session: str, yes: bool) -> int:
    """Remove a transcript for good, by the daemon where one runs; asks first. Raises `GatewayError`."""
    settings = config_file.load(config)
    with _disk():
        id = _find(settings.data_dir, session)
    if not yes and not _confirmed(id):
        print("Nothing was deleted.", file=sys.stderr)
        return 1
    try:
        ask.control(settings.socket, "delete", {"session": id})
    except NotRunning:
        _delete_alone(settings.data_dir, id)
    print(f"{_printable(id)} is deleted.")
    return 0


def _delete_alone(data_dir: Path, session: SessionId) -> None:
    lock = DirectoryLock(data_dir)
    try:
        lock.acquire()
        listing.remove(data_dir, session)
    except StoreLocked as error:
        raise Held(f"A gateway is running but does not answer: {error}.") from error
    except OSError as error:
        raise CannotCreate(f"{_printable(session)} cannot be deleted: {error.strerror or error}.") from error
    finally:
        lock.release()


def _confirmed(session: str) -> bool:
    if not sys.stdin.isatty():
        print("Not asked because there is no terminal; use --yes.", file=sys.stderr)
        return False
    print(f"Delete {_printable(session)} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)  # Ctrl-D
    return answer.strip().lower() in ("y", "yes")


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Unreadable(f"{where}{error.strerror or error}") from error


def _find(data_dir: Path, session: str) -> SessionId:
    """The session of that id, or of that peer id on the local socket, such as `work`."""
    for id in (session, f"agent:main:cli:{session}"):
        try:
            ids.parse(id)
        except SessionError:
            continue
        if _path(data_dir, id).exists():
            return SessionId(id)
    known = [entry.session for entry in listing.entries(data_dir)]
    near = difflib.get_close_matches(session, known, 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else "`lunar sessions list` shows all."
    raise NoSuchSession(_printable(f"There is no session {session}. {hint}"))


def _path(data_dir: Path, session: str) -> Path:
    return data_dir / "sessions" / ids.file_name(session)


def _events(path: Path) -> Iterator[tuple[Event, bytes]]:
    transcript = Transcript(path, writable=False)
    try:
        cursor: str | None = None
        while records := transcript.after(cursor, _PAGE):
            for record in records:
                yield record.event, record.json()
            cursor = records[-1].cursor
    finally:
        transcript.close()


def _report(path: Path) -> Report:
    transcript = Transcript(path, writable=False)
    try:
        return transcript.verify()
    finally:
        transcript.close()


def _readable(event: Event) -> str:
    when = _local(event.ts)
    match event:
        case User(content=content):
            return f"{when}  you        {_indented(content)}"
        case Assistant(content=content, finish=finish):
            mark = f" [{finish}]" if finish in _UNFINISHED else ""
            return f"{when}  assistant  {_indented(content)}{mark}"
        case ToolCall(name=name, args=args):
            return f"{when}  tool       {name}({_short(args)})"
        case ToolResult(name=name, result=result, ok=ok):
            return f"{when}  tool       {name} {'→' if ok is not False else 'failed:'} {_short(result)}"
        case System(name=name, content=content):
            return f"{when}  ·          {name}{': ' + _indented(content) if content else ''}"
        case Unknown(data=data):
            return f"{when}  ?          {_short(data)}"


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 29)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
    return _indented(text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…")


def _local(ts: str) -> str:
    try:
        return datetime.fromisoformat(ts).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return " " * 16


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _size(size: int) -> str:
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:.1f} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _verdict(report: Report) -> str:
    parts = [_count(report.lines, "line")]
    if bad := report.bad:
        parts.append(f"damaged: line {', '.join(map(str, bad[:10]))}{' …' if len(bad) > 10 else ''}")
    if report.torn:
        parts.append(f"an unfinished last line of {report.torn} bytes, which the gateway will see to")
    return "; ".join(parts if len(parts) > 1 else [*parts, "sound"])


def _print_json(**values: Any) -> None:
    print(json.dumps(values))


def _printable(text: str) -> str:
    return text.translate(_HARMLESS)
