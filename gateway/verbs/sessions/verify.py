"""`lunar sessions verify`."""

from __future__ import annotations

import sys
from typing import NamedTuple

from gateway import config_file
from gateway.verbs.sessions import source, spread
from gateway.verbs.sessions.finding import disk, find
from gateway.verbs.sessions.printing import count, print_json, printable
from gateway.verbs.sessions.source import Source
from session.ids import SessionId
from session.listing import Entry
from session.transcript import Report


class Found(NamedTuple):
    """What is in one transcript; `archive` says what is wrong with its compressed file."""

    report: Report
    archive: str | None

    @property
    def damaged(self) -> bool:
        """Whether the news is bad."""
        return bool(self.report.bad or self.archive)


def main(config: str | None, sessions: list[str], as_json: bool) -> int:
    """Read every line of every transcript; exits 1 where one is damaged. Raises `NoSuchSession`."""
    at = source.of(config_file.load(config))
    with disk():
        if sessions:
            entries = sorted({Entry(find(at, name), 0, 0.0) for name in sessions})
        else:
            entries = sorted(at.entries())
    damaged = 0
    for found in spread.over(at, entries, looked_at, "Verifying"):
        for session, what in found:
            damaged += isinstance(what, str) or what.damaged
            _print(session, what, as_json, named=bool(sessions))
    if not as_json:
        print(f"{count(len(entries), 'session')}, {damaged} damaged")
    return 1 if damaged else 0


def looked_at(at: Source, sessions: list[SessionId]) -> list[tuple[SessionId, Found | str]]:
    """What is found in each of them, or why it cannot be read."""
    return [(session, _look(at, session)) for session in sessions]


def _look(at: Source, session: SessionId) -> Found | str:
    try:
        transcript, damage = at.opened(session)
        try:
            report = transcript.verify()
        finally:
            transcript.close()
        if damage is None and (doubt := at.doubt(session)):
            return Found(report, doubt)
    except OSError as error:
        return error.strerror or str(error)
    return Found(report, damage.strerror if damage else None)


def _print(session: SessionId, what: Found | str, as_json: bool, *, named: bool) -> None:
    if isinstance(what, str):
        print(f"lunar: {printable(session)}: cannot be read: {what}", file=sys.stderr)
    elif as_json:
        about = {"archive": what.archive} if what.archive else {}
        print_json(session=session, **what.report._asdict(), **about)
    elif what.damaged or what.report.torn or named:
        print(f"{printable(session)}: {_verdict(what)}")


def _verdict(what: Found) -> str:
    report = what.report
    parts = [count(report.lines, "line")]
    if bad := report.bad:
        parts.append(f"damaged: line {', '.join(map(str, bad[:10]))}{' …' if len(bad) > 10 else ''}")
    if report.torn:
        parts.append(f"an unfinished last line of {report.torn} bytes, which the gateway will see to")
    if what.archive:
        parts.append(what.archive)
    return "; ".join(parts if len(parts) > 1 else [*parts, "sound"])
