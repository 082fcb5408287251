"""Ask once, print the answer, and leave with an exit code that tells how it went.

0: answered, or a command's notice · 1: the turn failed, or its reply was cut or withheld · 130: stopped ·
141: nobody reads the output any more · otherwise a sysexits code (65 too large, 69 no daemon, 75 try later).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from channels import wire
from channels.asking import arguments
from channels.cli.carrier import DATA, NO_PERMISSION, TEMPORARY
from channels.cli.link import Link, Lost, Received
from session import events

STOPPED = 130  # 128 + SIGINT

_ENDINGS: dict[str, tuple[str, int]] = {
    "cut": ("The reply was cut off: the connection to the model broke.", 1),
    "length": ("The reply ends here: it reached the model's length limit.", 0),
    "filtered": ("The model's provider withheld the reply, or the rest of it.", 1),
    "stopped": ("The reply was stopped.", STOPPED),
}
_REFUSED: dict[str, int] = {
    "queue_full": TEMPORARY,
    "storage_unavailable": TEMPORARY,
    "not_allowed": NO_PERMISSION,
    "text_too_large": DATA,
    "frame_too_large": DATA,
}


_LONGEST_ARGS = 400
_HOW_TO_ANSWER = "Say /yes or /no in another `lunar chat` of this session; it waits for five minutes."


class Out(Protocol):
    """Where one answer goes."""

    def frame(self, raw: bytes) -> None:
        """Each frame, as received."""

    def progress(self, text: str) -> None:
        """All that the reply says so far."""

    def reply(self, text: str) -> None:
        """The whole reply; also where `progress` has said a part of it."""

    def note(self, sentence: str) -> None:
        """Something about the reply that is not part of it."""


@dataclass
class _Asked:
    """What is known of the question and of the turn that answers it."""

    id: str
    connected: bool = False
    turn: str | None = None
    queued: int | None = None  # from the acknowledgement: turns ahead
    said: dict[str, list[str]] = field(default_factory=dict)  # by turn: texts that are on the transcript
    draft: str = ""  # what the turn has said since


async def ask(link: Link, text: str, out: Out) -> int:
    """Say `text`, wait for the turn that answers it, print that; return the exit code.

    A lost connection is waited out, as long as it takes. Raises `CannotChat`.
    """
    asked = _Asked(link.say(text))
    interrupted = asyncio.Event()
    with _on_interrupt(interrupted):
        answer = asyncio.create_task(_answer(link, asked, out))
        interrupt = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait({answer, interrupt}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if _runs(asked):
                link.stop()
                await link.flush()
            return STOPPED
        finally:
            for task in (answer, interrupt):
                task.cancel()
            await asyncio.gather(answer, interrupt, return_exceptions=True)


def _runs(asked: _Asked) -> bool:
    """Whether `stop` would stop this question's turn, and not one that is ahead of it."""
    return asked.turn is not None or asked.queued == 0


async def _answer(link: Link, asked: _Asked, out: Out) -> int:
    async with aclosing(link.listen()) as heard:
        async for item in heard:
            match item:
                case Lost(reason):
                    if asked.connected:
                        out.note(f"The connection was lost ({reason}); waiting for it to come back.")
                    asked.connected = False
                case Received(raw, frame, settled):
                    out.frame(raw)
                    code = _hear(asked, frame, settled, out)
                    if code is not None:
                        return code
    raise AssertionError("a link listens until it raises")


def _hear(
    asked: _Asked, frame: wire.ServerFrame | None, settled: wire.Message | None, out: Out
) -> int | None:
    """Take one frame in; return the exit code if it is the last."""
    match frame:
        case wire.Welcome():
            asked.connected = True
            if frame.reset is True:
                asked.said.clear()
            if frame.running:
                _started(asked, frame.running.turn, frame.running.answers, frame.running.text or "", out)
        case wire.StartedFrame(turn=turn, answers=answers):
            _started(asked, turn, answers, "", out)
        case wire.DeltaFrame(turn=turn, text=text) if turn == asked.turn:
            asked.draft += text
            out.progress(_joined([*asked.said.get(turn, ()), asked.draft]))
        case wire.ApprovalFrame(turn=turn, name=name, args=args) if turn == asked.turn:
            out.note(f"{name} {arguments(args, _LONGEST_ARGS)} asks whether it may run. {_HOW_TO_ANSWER}")
        case wire.Ack(id=asked.id, queued=queued):
            asked.queued = queued
        case wire.EventFrame(event=raw):
            return _event(asked, events.decode(bytes(raw)), out)
        case wire.Notice(id=asked.id, text=text):
            out.reply(text)
            return 0
        case wire.Error(code=code, message=message) if settled:
            out.note(message)
            return _REFUSED.get(code, 1)
    return None


def _started(asked: _Asked, turn: str, answers: Sequence[str], text: str, out: Out) -> None:
    if asked.id in answers:
        asked.turn, asked.draft = turn, text
        out.progress(_joined([*asked.said.get(turn, ()), text]))


def _event(asked: _Asked, event: events.Event, out: Out) -> int | None:
    closed = events.closes(event)
    turn = event.turn if isinstance(event, events.Assistant | events.System) else None
    if isinstance(event, events.Assistant) and turn:
        asked.said.setdefault(turn, []).append(event.content)
        if turn == asked.turn:
            asked.draft = ""
    if isinstance(event, events.System) and event.name == "steered" and turn:
        asked.said.pop(turn, None)  # it was no answer to this
        _started(asked, turn, event.messages or (), "", out)
    if closed is None or turn is None:
        return None
    said = asked.said.pop(turn, [])
    if asked.id not in closed:
        return None
    if isinstance(event, events.Assistant):
        note, code = _ENDINGS.get(event.finish or "stop", ("", 0))
    else:
        content = event.content if isinstance(event, events.System) else None
        note, code = content or "The turn failed.", 1
    out.reply(_joined(said))
    if note:
        out.note(note)
    return code


def _joined(texts: Sequence[str]) -> str:
    *before, last = [text for text in texts if text] or [""]
    return "\n\n".join([*(text.rstrip("\n") for text in before), last])


@contextmanager
def _on_interrupt(event: asyncio.Event) -> Iterator[None]:
    """Set the event at Ctrl-C; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        event.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
