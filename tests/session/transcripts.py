"""One transcript, as the tests of `session.transcript` make it."""

from __future__ import annotations

from pathlib import Path

from session.events import Event, Record, System, User, encode
from session.transcript import Transcript

HEADER = System(name="session", content="agent:main:cli:local", format=1, ts="2026-02-25T10:05:00.000Z")
NAME = "agent-main-cli-local.jsonl"


def opened(folder: Path, name: str = NAME) -> Transcript:
    return Transcript(folder / name, writable=True, header=HEADER)


def user(text: str) -> User:
    return User(content=text, id="m", ts="t")


def said(records: list[Record]) -> list[Event]:
    return [record.event for record in records]


def everything(transcript: Transcript) -> list[Event]:
    return said(transcript.after(None, 1_000_000))


LINES = [
    encode(HEADER),
    encode(user("eins")),
    b'{"role":"user","content":"plain"}\n',
    encode(user("zwei é\u2028")),
]
WHOLE = b"".join(LINES)


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("*.torn-*")]
