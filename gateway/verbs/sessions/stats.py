"""`lunar sessions stats`: how many there are, how large, and what was said when."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from gateway import config_file
from gateway.verbs.sessions import source, spread
from gateway.verbs.sessions.finding import latest_first
from gateway.verbs.sessions.printing import count, iso, printable, size
from gateway.verbs.sessions.source import Source
from session import ids
from session.ids import SessionId
from session.listing import Entry

_BIGGEST = 10
_DAYS = 14
_BAR = 30  # characters


class _Tokens(msgspec.Struct):
    input: int = 0
    output: int = 0


class _Line(msgspec.Struct):
    role: str = ""
    ts: str = ""
    model: str | None = None
    usage: _Tokens | None = None


_line = msgspec.json.Decoder(_Line)


@dataclass
class Said:
    """What was said in some sessions; days are UTC, tokens by model are input and output."""

    messages: Counter[str] = field(default_factory=Counter)  # by role
    days: Counter[str] = field(default_factory=Counter)
    input: Counter[str] = field(default_factory=Counter)
    output: Counter[str] = field(default_factory=Counter)

    def add(self, other: Said) -> None:
        """Count the other's too."""
        self.messages += other.messages
        self.days += other.days
        self.input += other.input
        self.output += other.output


def main(config: str | None, as_json: bool) -> int:
    """Print the figures; raises `Unreadable`."""
    at = source.of(config_file.load(config))
    entries = latest_first(at)
    said = Said()
    for part in spread.over(at, entries, counted, "Counting"):
        said.add(part)
    print(json.dumps(_data(entries, said), indent=2) if as_json else "\n".join(_rows(entries, said)))
    return 0


def counted(at: Source, sessions: list[SessionId]) -> Said:
    """The figures of these sessions; damaged lines, and files that cannot be read, are passed over."""
    said = Said()
    for session in sessions:
        try:
            for block in at.blocks(session):
                for line in block.splitlines():
                    _count(said, line)
        except OSError:
            continue
    return said


def _count(said: Said, raw: bytes) -> None:
    try:
        line = _line.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    said.messages[line.role] += 1
    if line.role in ("user", "assistant") and line.ts:
        said.days[line.ts[:10]] += 1
    if line.usage is not None:
        said.input[line.model or "?"] += line.usage.input
        said.output[line.model or "?"] += line.usage.output


def _data(entries: list[Entry], said: Said) -> dict[str, object]:
    biggest = sorted(entries, key=lambda entry: -entry.size)[:_BIGGEST]
    archived = [entry for entry in entries if entry.archived]
    return {
        "sessions": len(entries),
        "archived": len(archived),
        "bytes": sum(entry.size for entry in entries),
        "archived_bytes": sum(entry.size for entry in archived),
        "oldest": iso(entries[-1].modified) if entries else None,
        "newest": iso(entries[0].modified) if entries else None,
        "channels": dict(_channels(entries)),
        "biggest": [{"session": entry.session, "bytes": entry.size} for entry in biggest],
        "messages": dict(sorted(said.messages.items())),
        "days": dict(sorted(said.days.items())),
        "input": dict(sorted(said.input.items())),
        "output": dict(sorted(said.output.items())),
    }


def _channels(entries: list[Entry]) -> Counter[str]:
    return Counter(ids.parse(entry.session)[1].provider for entry in entries)


def _rows(entries: list[Entry], said: Said) -> list[str]:
    total, archived = sum(entry.size for entry in entries), [entry for entry in entries if entry.archived]
    spoken = said.messages["user"], said.messages["assistant"]
    rows = [
        ("Sessions", f"{len(entries)}, of which {len(archived)} archived"),
        ("Channels", ", ".join(f"{name} {number}" for name, number in _channels(entries).most_common())),
        ("On disk", f"{size(total)}, of which {size(sum(entry.size for entry in archived))} archived"),
        ("Messages", f"{spoken[0]} from people, {spoken[1]} from agents"),
        ("Tool calls", str(said.messages["tool_call"])),
    ]
    if entries:
        rows.append(("Changed", f"{iso(entries[-1].modified)} to {iso(entries[0].modified)}"))
    rows += [
        (f"Tokens, {printable(model)}", f"{said.input[model]} in, {said.output[model]} out")
        for model in sorted(said.input | said.output)
    ]
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:<{width}}  {text}" for label, text in rows]
    return [*lines, *_biggest_rows(entries), *_day_rows(said.days)]


def _biggest_rows(entries: list[Entry]) -> list[str]:
    biggest = sorted(entries, key=lambda entry: -entry.size)[:_BIGGEST]
    rows = [f"{size(entry.size):>10}  {printable(entry.session)}" for entry in biggest]
    return ["", "The biggest:", *rows] if rows else []


def _day_rows(days: Counter[str]) -> list[str]:
    shown = sorted(days)[-_DAYS:]
    most = max((days[day] for day in shown), default=1)
    rows = [
        f"  {printable(day)}  {'█' * round(_BAR * days[day] / most):<{_BAR}}  {days[day]}" for day in shown
    ]
    title = f"Messages a day (UTC), the last {count(len(shown), 'day')} on which something was said:"
    return ["", title, *rows] if rows else []
