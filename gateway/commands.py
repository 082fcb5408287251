"""The table of `/commands`; help comes out of it.

A command is answered at once by a notice, even while a turn runs. One that changes something stores an
event with the message's id, which recognises a repeat.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, NamedTuple, Protocol

from channels.asking import arguments
from channels.base import Approval, Receipt
from channels.errors import Refused
from gateway.rules import Mode
from session.events import System

MODES: dict[Mode, str] = {  # what becomes of messages that arrive during a reply: they ...
    "collect": "are answered together after it",
    "each": "are answered one by one after it",
    "steer": "are put before the model at its next step",
    "interrupt": "stop it and are answered next",
}
_LONGEST_NAME = 100
_LONGEST_ARGUMENTS = 1000  # characters of a call in a notice
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

    async def admit(self, code: str) -> str:
        """Let in whoever was told this pairing code; returns what to say."""

    @property
    def asked(self) -> list[Approval]:
        """The tool calls that wait for the person's word, oldest first."""

    async def decide(self, call_id: str, allow: bool, id: str) -> None:
        """The person's word on one of them, by message `id`; raises `Refused`."""

    @property
    def queue(self) -> tuple[Mode, Mode]:
        """What happens to messages that arrive during a turn: here, and where nobody chose."""

    @property
    def model(self) -> str:
        """The name of the model that answers here, as people see it."""

    @property
    def chosen(self) -> str | None:
        """The configured name of the model that was chosen for this session."""

    @property
    def models(self) -> dict[str, str]:
        """Those that may be chosen: each one's name as people see it, by its configured name."""

    async def compact(self) -> str:
        """Have a summary written now; what to say. Raises `Refused`."""

    async def undo(self, id: str) -> str:
        """Hide the last exchange from the model, as message `id`; what to say. Raises `Refused`."""

    async def again(self, id: str) -> Receipt | str:
        """Ask the last question once more, as message `id`, or say why not. Raises `Refused`."""

    async def status(self) -> list[tuple[str, str]]:
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
    run: Callable[[Scene, Call], Coroutine[Any, Any, str | Receipt]]  # a receipt: it stands for a message
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


async def _yes(scene: Scene, call: Call) -> str:
    return await _decide(scene, call, allow=True)


async def _no(scene: Scene, call: Call) -> str:
    return await _decide(scene, call, allow=False)


async def _decide(scene: Scene, call: Call, *, allow: bool) -> str:
    asked, number = scene.asked, call.argument.strip()
    if not asked:
        return "Nothing is being asked."
    meant = [one for one in asked if not number or number == str(one.number)]
    if len(meant) != 1:
        rows = [f"{one.number}. {_shown(one)}" for one in asked]
        return "\n".join([f"Which one? /{call.name} NUMBER", *rows])
    try:
        await scene.decide(meant[0].call_id, allow, call.id)
    except Refused as refused:
        if refused.code != "not_found":
            raise
        return refused.public  # somebody else was quicker, or the time was over
    return f"{'Allowed' if allow else 'Not allowed'}: {_shown(meant[0])}"


def _shown(asked: Approval) -> str:
    return f"{arguments(asked.name, _LONGEST_NAME)} {arguments(asked.args, _LONGEST_ARGUMENTS)}"


async def _queue(scene: Scene, call: Call) -> str:
    mode, default = scene.queue
    wanted = call.argument.strip().lower()
    if not wanted:
        marks = {default: " (default)"} | {mode: " (now)"}
        rows = [f"/queue {name}{marks.get(name, '')}: {summary}" for name, summary in MODES.items()]
        return "\n".join(["Messages that arrive during a reply:", *rows])
    if wanted not in MODES and wanted != "default":
        return f"There is no mode {wanted!r}; there are: {', '.join(MODES)}, default."
    value = None if wanted == "default" else wanted
    await scene.note(System(name="setting", key="queue", value=value, id=call.id))
    chosen = next((mode for mode in MODES if mode == wanted), default)
    return f"Messages that arrive during a reply {MODES[chosen]}."


async def _model(scene: Scene, call: Call) -> str:
    wanted, models = call.argument.strip(), scene.models
    if not wanted:
        marks = {scene.chosen: " (chosen here)"}
        rows = [f"/model {name}{marks.get(name, '')}: {label}" for name, label in models.items()]
        back = [] if "default" in models else ["/model default: what answers where nobody chose"]
        return "\n".join([f"{scene.model} answers here.", *rows, *back])
    if wanted not in models and wanted != "default":
        return f"There is no model {wanted!r} to choose; there are: {', '.join({**models, 'default': ''})}."
    value = None if wanted == "default" else wanted
    await scene.note(System(name="setting", key="model", value=value, id=call.id))
    return f"From the next message on, {scene.model} answers here."


async def _compact(scene: Scene, call: Call) -> str:
    said = await scene.compact()
    await scene.note(System(name="note", content="/compact", id=call.id))
    return said


async def _undo(scene: Scene, call: Call) -> str:
    return await scene.undo(call.id)


async def _retry(scene: Scene, call: Call) -> str | Receipt:
    return await scene.again(call.id)


async def _status(scene: Scene, call: Call) -> str:
    return "\n".join(f"{label}: {value}" for label, value in await scene.status())


async def _approve(scene: Scene, call: Call) -> str:
    if not call.argument.strip():
        return "Which code? /approve CODE"
    said = await scene.admit(call.argument.strip())
    await scene.note(System(name="note", content="/approve", id=call.id))
    return said


async def _help(scene: Scene, call: Call) -> str:
    return _listed(operator=scene.operator)


@cache
def _listed(*, operator: bool) -> str:
    shown = [command for command in COMMANDS.values() if operator or not command.operators]
    width = max(len(command.name) for command in shown)
    rows = [f"/{command.name:<{width}}  {command.summary}" for command in shown]
    return "\n".join([*rows, "A message that begins with // is sent with one /."])


COMMANDS = {
    command.name: command
    for command in (
        Command("new", "begin a new conversation", _new),
        Command("stop", "stop the reply that is being written", _stop),
        Command("retry", "ask the last question again, in place of its answer", _retry),
        Command("undo", "take back the last question and its answer", _undo),
        Command("compact", "have a summary take the place of what was said before", _compact),
        Command("yes", "let the tool run that asks: /yes, or /yes NUMBER", _yes),
        Command("no", "do not let it run: /no, or /no NUMBER", _no),
        Command("queue", "show or set what becomes of messages during a reply: /queue MODE", _queue),
        Command("model", "show or choose the model that answers here: /model NAME", _model),
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
