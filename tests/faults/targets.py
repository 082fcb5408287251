"""What takes in foreign bytes, each as a function of bytes that raises where a promise does not hold."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import telegram
from msgspec.structs import replace
from telegram.error import TelegramError

from channels import wire
from channels.errors import Refused
from channels.telegram.adapter import Adapter
from channels.telegram.journal import Journal
from channels.telegram.moves import Moves
from channels.telegram.pairing import FILE, Pairing
from channels.telegram.people import People
from channels.telegram.polling import PollRequest
from gateway import config_file
from gateway.agent.reply import Finish
from gateway.agent.stream import Decoder
from gateway.config import Config
from gateway.errors import ConfigError
from session import events
from session.conversation import Conversation
from session.events import BadLine, System, Unknown, User
from session.transcript import Transcript
from tests.faults.samples import CONFIGS, FRAMES, LINES, SERVER_FRAMES, STREAMS, UPDATES


class Target(NamedTuple):
    """What is tried, and what is valid: that is what gets spoiled."""

    run: Callable[[bytes], object]
    valid: list[bytes]


@cache
def scratch() -> Path:
    """A folder for this process, in memory where there is such a place; whoever fuzzes removes it."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="lunar-fuzz-", dir=shm if os.access(shm, os.W_OK) else None))


# -- frames --------------------------------------------------------------------------------------


def client_frame(data: bytes) -> None:
    """A frame, or `Refused` with a sentence; what is accepted means the same when it is written again."""
    try:
        frame = wire.parse(data)
    except Refused as refused:
        refusal = refused
    else:
        assert wire.parse(wire.encode(frame)) == frame
        return
    assert refusal.public
    assert refusal.code in ("bad_json", "bad_utf8", "bad_frame", "frame_too_large"), refusal.code


def server_frame(data: bytes) -> None:
    """A frame, or `DecodeError`: whatever is at the other end of our own clients."""
    try:
        wire.decode(data)
    except msgspec.DecodeError:
        return


# -- transcripts ---------------------------------------------------------------------------------


def line(data: bytes) -> None:
    """An event, or `BadLine`; an event of ours is the same after it was written and read."""
    try:
        event = events.decode(data)
    except BadLine:
        return
    if not isinstance(event, Unknown):
        assert events.decode(events.encode(event)[:-1]) == event


def transcript(data: bytes) -> None:
    """Any file is a transcript: it opens, reads the same from either end, goes on, and loses no line."""
    path = scratch() / "agent-main-cli-local.jsonl"
    path.write_bytes(data)
    file = Transcript(path, writable=True, header=System(name="session", content="x", format=1, ts="t"))
    try:
        found = file.after(None, 1 << 30)
        assert list(file.backwards())[::-1] == found
        assert len(found) + len(file.verify().bad) <= file.verify().lines
        past = Conversation(20, push=True)
        for record in found:
            past.apply(record)
        file.append([User(content="goes on", id="last")])
        assert [record.event for record in file.after(None, 1 << 30)][-1] == User(
            content="goes on", id="last"
        )
        assert path.read_bytes().startswith(data[: data.rfind(b"\n") + 1])
    finally:
        file.close()
        for kept in scratch().glob("*.torn-*"):
            kept.unlink()


# -- configuration -------------------------------------------------------------------------------


def config(data: bytes) -> None:
    """A configuration, or `ConfigError` whose problems can be shown."""
    path = scratch() / "config.yaml"
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        found = config_file.load(str(path))
    except ConfigError as error:
        problems = error.problems
    else:
        assert isinstance(found, Config)
        return
    assert problems
    assert all(problems)


# -- Bot API updates -----------------------------------------------------------------------------


def update(data: bytes) -> None:
    """Whatever comes has a lane; reading it gives a meaning, or an error that buries it alone."""
    try:
        body: Any = PollRequest.parse_json_payload(b'{"ok":true,"result":[' + data + b"]}")["result"]
    except TelegramError:
        return
    moves = Moves(Journal(scratch() / "moves"))
    people = People(("7", "chat:-100"), Pairing(Journal(scratch() / FILE)), moves.origin)
    me = telegram.User(123456, "Lunar", is_bot=True, username="lunar_bot")
    adapter = Adapter(me, people, moves, ("new", "help"), context=True)
    for one in body:
        lane = adapter.lane(one)
        assert lane is None or type(lane) is int
        try:
            meaning = adapter.read(one)
        except Exception:
            continue  # the intake keeps it as a dead letter
        assert meaning is None or isinstance(meaning, tuple)


# -- the model's streams --------------------------------------------------------------------------


def stream(data: bytes) -> None:
    """Nothing raises; however the bytes are cut, the reply is the same, and its text can be written."""
    whole, pieces = Decoder(1 << 16, keep_reasoning=True), Decoder(1 << 16, keep_reasoning=True)
    said = whole.feed(data) + whole.end()
    step = 1 + len(data) % 61
    other = "".join(pieces.feed(data[at : at + step]) for at in range(0, len(data), step)) + pieces.end()
    said.encode()
    events.to_json(whole.finish("m"))
    if whole.fault is None and pieces.fault is None:
        assert said == other
        assert _without_ids(whole.finish("m")) == _without_ids(pieces.finish("m"))


def _without_ids(finish: Finish) -> Finish:
    """Calls that came without an id get a random one."""
    return replace(finish, calls=tuple(replace(call, id="") for call in finish.calls))


TARGETS = {
    "client frames": Target(client_frame, FRAMES),
    "server frames": Target(server_frame, SERVER_FRAMES),
    "lines": Target(line, [*LINES, *(events.encode(events.decode(one))[:-1] for one in LINES)]),
    "transcripts": Target(
        transcript,
        [b"\n".join(LINES), b"".join(events.encode(events.decode(one)) for one in LINES)],
    ),
    "configurations": Target(config, CONFIGS),
    "updates": Target(update, UPDATES),
    "streams": Target(stream, STREAMS),
}
