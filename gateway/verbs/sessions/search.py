"""`lunar sessions search`."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import NamedTuple

from gateway import config_file
from gateway.verbs.sessions import source, spread
from gateway.verbs.sessions.finding import disk, find, latest_first
from gateway.verbs.sessions.matching import Hit, Needle
from gateway.verbs.sessions.printing import local, print_json, printable, speaker
from gateway.verbs.sessions.source import Source
from session import events
from session.events import BadLine, Event
from session.ids import SessionId
from session.listing import Entry

_MARK = ("\x1b[1;7m", "\x1b[0m")
_QUIET = ("\x1b[2m", "\x1b[0m")
_PLAIN = ("", "")
_ROLES = {"you": "user", "assistant": "assistant", "tool": "tool", "·": "system", "?": "other"}
ROLES = tuple(_ROLES.values())


class Match(NamedTuple):
    """A line that was found, and who said it when and where."""

    session: SessionId
    ts: str
    role: str
    hit: Hit


def main(config: str | None, needle: Needle, sessions: list[str], role: str | None, as_json: bool) -> int:
    """Print every line that has it, the latest sessions first; exits 1 where there is none.

    Raises `NoSuchSession`, `Unreadable`.
    """
    at = source.of(config_file.load(config))
    with disk():
        entries = [Entry(find(at, name), 0, 0.0) for name in sessions] or latest_first(at)
    found = 0
    colours = not as_json and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for matches in spread.over(at, entries, partial(searched, needle, role), "Searching"):
        for match in matches:
            found += 1
            if as_json:
                hit = match.hit
                print_json(
                    session=match.session,
                    ts=match.ts,
                    role=match.role,
                    line=hit.line,
                    start=hit.start,
                    end=hit.end,
                )
            else:
                print(_shown(match, colours))
        if matches:
            sys.stdout.flush()
    return 0 if found else 1


def searched(needle: Needle, role: str | None, at: Source, sessions: list[SessionId]) -> list[Match]:
    """What is found in these sessions; one that cannot be read is told on stderr."""
    matches = []
    for session in sessions:
        try:
            for event in _candidates(needle, at, session):
                said_by = _ROLES[speaker(event)]
                if role in (None, said_by):
                    matches += [Match(session, event.ts, said_by, hit) for hit in needle.hits(event)]
        except OSError as error:
            print(f"lunar: {printable(session)}: {error.strerror or error}", file=sys.stderr)
    return matches


def _candidates(needle: Needle, at: Source, session: SessionId) -> list[Event]:
    found = []
    for block in at.blocks(session):
        if not needle.may_be_in(block):
            continue
        for line in block.split(b"\n"):
            if line and needle.may_be_in(line):
                try:
                    found.append(events.decode(line))
                except BadLine:
                    continue  # `verify` names it
    return found


def _shown(match: Match, colours: bool) -> str:
    line, start, end = match.hit
    quiet, mark = (_QUIET, _MARK) if colours else (_PLAIN, _PLAIN)
    parts = map(printable, (line[:start], line[start:end], line[end:]))
    before, found, behind = (part.replace("\t", " ") for part in parts)
    where = f"{printable(match.session)}  {local(match.ts)}  {match.role:<9}"
    return f"{quiet[0]}{where}{quiet[1]}  {before}{mark[0]}{found}{mark[1]}{behind}"
