"""`lunar sessions`: look at the transcripts, with or without a running daemon."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway import ask, config_file
from gateway.errors import CannotCreate, Held, NoSuchSession, NotRunning
from session import ids, store
from session.errors import SessionError, StoreLocked
from session.events import Assistant, Event, System, ToolCall, ToolResult, Unknown, User
from session.lock import DirectoryLock
from session.transcript import Transcript

_PAGE = 256


def list_(config: str | None, as_json: bool) -> int:
    """Print every session, latest first."""
    data_dir = config_file.load(config).data_dir
    found = sorted(store.entries(data_dir), key=lambda entry: -entry.modified)
    if as_json:
        for entry in found:
            print(
                json.dumps({"session": entry.session, "bytes": entry.size, "modified": _iso(entry.modified)})
            )
        return 0
    if not found:
        print(f"No sessions in {data_dir}.", file=sys.stderr)
    width = max((len(entry.session) for entry in found), default=0)
    for entry in found:
        when = datetime.fromtimestamp(entry.modified).astimezone().strftime("%Y-%m-%d %H:%M")
        print(f"{_printable(entry.session):<{width}}  {when}  {_size(entry.size):>9}")
    return 0


def show(config: str | None, session: str, as_json: bool) -> int:
    """Print one transcript; raises `NoSuchSession`."""
    for event, line in _events(_path(config_file.load(config).data_dir, session)):
        if as_json:
            sys.stdout.write(line.decode("utf-8", "replace") + "\n")
        else:
            print(_printable(_readable(event)))
    return 0


def verify(config: str | None, sessions: list[str], as_json: bool) -> int:
    """Read every line of every transcript; exits 1 where one is damaged."""
    data_dir = config_file.load(config).data_dir
    names = sessions or [entry.session for entry in store.entries(data_dir)]
    damaged = 0
    for name in sorted(names):
        transcript = Transcript(_path(data_dir, name), writable=False)
        try:
            report = transcript.verify()
        finally:
            transcript.close()
        damaged += bool(report.bad)
        if as_json:
            print(json.dumps({"session": name, **report._asdict()}))
        elif report.bad or report.torn or sessions:
            print(f"{_printable(name)}: {_verdict(report.bad, report.torn, report.lines)}")
    if not as_json:
        print(f"{len(names)} sessions, {damaged} damaged")
    return 1 if damaged else 0


def delete(config: str | None, session: str, yes: bool) -> int:
    """Remove a transcript for good, by the daemon where one runs; asks first."""
    settings = config_file.load(config)
    path = _path(settings.data_dir, session)
    id = store.id_of(path)
    if not yes and not _confirmed(id):
        print("Nothing was deleted.", file=sys.stderr)
        return 1
    try:
        ask.control(settings.socket, "delete", {"session": id})
    except NotRunning:
        _delete_alone(settings.data_dir, id)
    print(f"{_printable(id)} is deleted.")
    return 0


def _delete_alone(data_dir: Path, session: ids.SessionId) -> None:
    lock = DirectoryLock(data_dir)
    try:
        lock.acquire()
        store.remove(data_dir, session)
    except StoreLocked as error:
        raise Held(f"A gateway is running but does not answer: {error}.") from error
    except OSError as error:
        raise CannotCreate(f"{session} cannot be deleted: {error.strerror}.") from error
    finally:
        lock.release()


def _confirmed(session: str) -> bool:
    if not sys.stdin.isatty():
        print("Not asked because there is no terminal; use --yes.", file=sys.stderr)
        return False
    return input(f"Delete {_printable(session)} for good? [y/N] ").strip().lower() in ("y", "yes")


def _path(data_dir: Path, session: str) -> Path:
    """The file of a session given by its whole id, or by a peer id of the local socket such as `work`."""
    for id in (session, f"agent:main:cli:{session}"):
        try:
            ids.parse(id)
        except SessionError:
            continue
        path = data_dir / "sessions" / ids.file_name(id)
        if path.exists():
            return path
    known = [entry.session for entry in store.entries(data_dir)]
    near = difflib.get_close_matches(session, known, 1, 0.5)
    hint = f" Did you mean {near[0]}?" if near else " `lunar sessions list` shows all."
    raise NoSuchSession(f"There is no session {session}.{hint}")


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


def _readable(event: Event) -> str:
    when = _local(event.ts)
    match event:
        case User(content=content):
            return f"{when}  you        {_indented(content)}"
        case Assistant(content=content, finish=finish):
            mark = f" [{finish}]" if finish in ("cut", "stopped", "length", "filtered") else ""
            return f"{when}  assistant  {_indented(content)}{mark}"
        case ToolCall(name=name, args=args):
            return f"{when}  tool       {name}({_short(args)})"
        case ToolResult(name=name, result=result, ok=ok):
            return f"{when}  tool       {name} {'→' if ok is not False else 'failed:'} {_short(result)}"
        case System(name=name, content=content):
            return f"{when}  ·          {name}{': ' + content if content else ''}"
        case Unknown(data=data):
            return f"{when}  ?          {_short(data)}"


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 29)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
    return text if len(text) <= 500 else text[:500] + "…"


def _local(ts: str) -> str:
    try:
        return datetime.fromisoformat(ts).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return " " * 16


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _size(size: int) -> str:
    return (
        f"{size} B"
        if size < 1024
        else f"{size / 1024:.1f} KiB"
        if size < 2**20
        else f"{size / 2**20:.1f} MiB"
    )


def _verdict(bad: tuple[int, ...], torn: int, lines: int) -> str:
    parts = [f"{lines} lines"]
    if bad:
        parts.append(f"damaged: line {', '.join(map(str, bad[:10]))}{' …' if len(bad) > 10 else ''}")
    if torn:
        parts.append(f"an unfinished last line of {torn} bytes, which the gateway will see to")
    return "; ".join(parts) if bad or torn else f"{lines} lines, sound"


def _printable(text: str) -> str:
    """The text without what could command a terminal."""
    return "".join(
        c if c in "\n\t" or (c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF) else "�" for c in text
    )
