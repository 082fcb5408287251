"""The table of `/commands`; help comes out of it.

A command is answered at once by a notice, even while a turn runs. One that changes something stores an
event with the message's id, which recognises a repeat.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from session.events import System

_COMMAND = re.compile(r"/([a-z][a-z0-9_]*)(?:\s+(.*))?\Z", re.DOTALL)


class Scene(Protocol):
    """What a command may look at and do: the session it was sent in."""

    def stop(self) -> bool:
        """Stop the running turn; False where there is none."""

    async def note(self, event: System) -> None:
        """Store an event in the session's transcript; raises `Refused`."""

    @property
    def operator(self) -> bool:
        """Whether an operator of the gateway sent it."""

    async def approve(self, code: str) -> str:
        """Let in whoever was told this pairing code; returns what to say."""

    def status(self) -> list[tuple[str, str]]:
        """What `/status` says, label by label."""


class Call(NamedTuple):
    """A command as somebody typed it, with its message's id."""

    name: str
    argument: str
    id: str


class Command(NamedTuple):
    """One row of the table."""

    name: str
    summary: str
    run: Callable[[Scene, Call], Awaitable[str]]
    operators: bool = False  # whether it is for operators alone


async def _new(scene: Scene, call: Call) -> str:
    scene.stop()
    await scene.note(System(name="reset", id=call.id))
    return "A new conversation begins. What was said before is kept, but I no longer see it."


async def _stop(scene: Scene, call: Call) -> str:
    if not scene.stop():
        return "Nothing is running."
    await scene.note(System(name="note", content="/stop", id=call.id))
    return "Stopped."


async def _status(scene: Scene, call: Call) -> str:
    return "\n".join(f"{label}: {value}" for label, value in scene.status())


async def _approve(scene: Scene, call: Call) -> str:
    if not call.argument.strip():
        return "Which code? /approve CODE"
    said = await scene.approve(call.argument.strip())
    await scene.note(System(name="note", content="/approve", id=call.id))
    return said


async def _help(scene: Scene, call: Call) -> str:
    shown = [command for command in COMMANDS.values() if scene.operator or not command.operators]
    width = max(len(command.name) for command in shown)
    rows = [f"/{command.name:<{width}}  {command.summary}" for command in shown]
    return "\n".join([*rows, "A message that begins with // is sent with one /."])


COMMANDS = {
    command.name: command
    for command in (
        Command("new", "begin a new conversation", _new),
        Command("stop", "stop the reply that is being written", _stop),
        Command("status", "say what is going on", _status),
        Command("approve", "let in whoever was told this code: /approve CODE", _approve, operators=True),
        Command("help", "list the commands", _help),
    )
}


def parse(id: str, text: str) -> Call | str | None:
    """A known command; the answer to an unknown one that stands alone; None for ordinary text."""
    found = _COMMAND.match(text.strip())
    if found is None:
        return None
    if found[1] in COMMANDS:
        return Call(found[1], found[2] or "", id)
    if found[2]:
        return None
    near = difflib.get_close_matches(found[1], COMMANDS, 1)
    hint = f"Did you mean /{near[0]}?" if near else "/help lists them."
    return f"There is no command /{found[1]}. {hint}"


def plain(text: str) -> str:
    """Ordinary text as it was meant: `//` at its beginning stands for `/`."""
    return text[1:] if text.startswith("//") else text
