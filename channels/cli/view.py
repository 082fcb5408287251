"""What a person is shown of a session: frames go in, parts of the screen come out. Knows no terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from channels import wire
from channels.asking import arguments
from channels.cli.draft import Draft, Reply
from channels.cli.link import Lost, Received
from channels.cli.printable import printable
from session import events


@dataclass(frozen=True)
class Said:
    """A person's message: typed here, in another client of the session, or before this one came."""

    text: str
    where: Literal["here", "elsewhere", "earlier"] = "here"


@dataclass(frozen=True)
class Faint:
    """A remark that is not part of the conversation."""

    text: str


@dataclass(frozen=True)
class Question:
    """The person is asked something."""

    text: str


@dataclass(frozen=True)
class Trouble:
    """One calm line about what went wrong."""

    text: str


Part = Said | Reply | Faint | Question | Trouble

_ENDINGS = {
    "stopped": "stopped",
    "cut": "cut off: the connection to the model broke",
    "length": "ends here: the model's length limit",
    "filtered": "withheld by the model's provider",
}
_LONGEST_ARGS = 400


class View:
    """One session on one screen. A message stands directly above its answer: until then it is `queued`."""

    def __init__(self) -> None:
        self.online = False
        self.turn: str | None = None  # that runs
        self.closed = 0  # how many turns have ended
        self.draft: Draft | None = None
        self.queued: dict[str, Said] = {}
        self.asked: dict[str, wire.ApprovalFrame] = {}  # by call_id, oldest first
        self._shown: set[str] = set()  # calls whose question stands on the screen
        self._own: set[str] = set()  # messages of this client, not to be echoed
        self._open: set[str] = set()  # messages that nothing has answered yet
        self._answering: frozenset[str] = frozenset()  # the messages of the running turn
        self._tools: dict[str, tuple[str, str]] = {}  # call_id -> name, state; since the last text
        self._history: list[events.Event] | None = None  # replayed at the first welcome, not looked at yet
        self._welcomed: wire.Welcome | None = None
        self._parts: list[Part] = []

    @property
    def busy(self) -> bool:
        """Whether there is something that a stop would stop."""
        return self.turn is not None or bool(self._open)

    @property
    def tools(self) -> str:
        """The tools of the turn since its last text, as one line."""
        marks = {"started": "…", "failed": " (failed)"}
        return " · ".join(printable(name) + marks.get(state, "") for name, state in self._tools.values())

    def take(self) -> list[Part]:
        """What has become ready to be shown for good since the last call."""
        parts, self._parts = self._parts, []
        return parts

    def show(self, *parts: Part) -> None:
        """Add something that the client itself has to say."""
        self._parts.extend(parts)

    def say(self, id: str, text: str) -> None:
        """The person said something, and the link has it."""
        self.open_history()
        self._own.add(id)
        self._wait(id, Said(text), now=self.online and text.startswith("/"))

    def keep(self, length: int, lead: str = "", *, joined: bool = False) -> None:
        """Show the beginning of the draft for good, and what came before it; see `Draft.keep`."""
        if self.draft:
            self._end_tools()
            self.show(self.draft.keep(length, lead, joined=joined))

    def hear(self, item: Received | Lost) -> None:
        """Take in what the link heard."""
        if isinstance(item, Lost):
            self.online = False
            return
        if not isinstance(item.frame, wire.EventFrame):
            self.open_history()
        match item.frame:
            case wire.Welcome():
                self._welcome(item.frame)
            case wire.EventFrame(event=raw, truncated=truncated):
                self._event(events.decode(bytes(raw)), truncated)
            case wire.StartedFrame(turn=turn, answers=answers):
                self._begin(turn, answers, "")
            case wire.DeltaFrame(turn=turn, text=text):
                self._draft_of(turn).add(text)
            case wire.ToolFrame(call_id=call_id, name=name, state=state):
                self._tool(call_id, name, state)
            case wire.ApprovalFrame():
                self._ask(item.frame)
            case wire.Notice(text=text):
                self._settled(item.settled)
                self.show(Faint(printable(text)))
            case wire.Error(message=message):
                self._settled(item.settled)
                if item.settled or item.frame.id is None:
                    self.show(Trouble(printable(message)))

    # -- frames ----------------------------------------------------------------------------------

    def _welcome(self, welcome: wire.Welcome) -> None:
        if self._welcomed is None:
            self._history = []
            self.show(
                Faint(f"{printable(welcome.agent)} · {printable(welcome.model)} · /help, Ctrl-D leaves")
            )
            if welcome.turns:
                self.show(Faint(f"📜 Loaded {welcome.turns} previous turns"))
        elif welcome.reset is True:
            self.show(Faint("The conversation is another one now; these are its latest messages."))
            self.queued.clear()
            self._open.clear()
        self._welcomed = welcome
        self.online = True
        self.asked.clear()  # what is still asked comes again, behind the replay
        self.turn = None
        if welcome.running:
            running = welcome.running
            self._begin(running.turn, running.answers, running.text or "", snapshot=True)
        elif self.draft:
            self.draft.again()

    def _begin(self, turn: str, answers: Iterable[str], text: str, *, snapshot: bool = False) -> None:
        self._answering = frozenset(answers)
        self._release(self._answering)
        self.turn = turn
        if not snapshot:
            self._tools.clear()
            self.asked.clear()  # another attempt asks anew
            self._shown.clear()
        self._draft_of(turn).again(text, snapshot=snapshot)

    def _draft_of(self, turn: str) -> Draft:
        if self.draft is None or self.draft.turn != turn:
            self.draft = Draft(turn)
        return self.draft

    def _tool(self, call_id: str, name: str, state: str) -> None:
        self._tools[call_id] = name, state
        self.asked.pop(call_id, None)

    def _ask(self, approval: wire.ApprovalFrame) -> None:
        number = f" {approval.number}" if self.asked.keys() - {approval.call_id} else ""
        self.asked[approval.call_id] = approval
        if approval.call_id not in self._shown:
            self._shown.add(approval.call_id)
            what = f"{printable(approval.name)} {arguments(approval.args, _LONGEST_ARGS)}"
            self.show(Question(f"{what} — may it run? /yes{number} or /no{number}"))

    def _decided(self, event: events.System) -> None:
        """Somebody else answered, or nobody did in time."""
        if asked := self.asked.pop(event.call_id or "", None):
            name = printable(asked.name)
            self.show(Faint(f"{name} may run." if event.allow else f"{name} may not run."))

    def _settled(self, message: wire.Message | None) -> None:
        if message:
            self._open.discard(message.id)
            self._release([message.id])

    # -- events ----------------------------------------------------------------------------------

    def open_history(self) -> None:
        """End the first replay: show the last exchange, and all that is not answered yet.

        Called when the replay has gone quiet; anything but an event ends it too.
        """
        if self._history is None or self._welcomed is None:
            return
        history, self._history = self._history, None
        closed = [i for i, event in enumerate(history) if events.closes(event) is not None]
        end = closed[-1] + 1 if closed else 0
        answered = {id for event in history for id in events.closes(event) or ()}
        last = events.closes(history[end - 1]) if closed and self._welcomed.turns else ()
        for event in history[:end]:
            if isinstance(event, events.User) and event.id and event.id in (last or ()):
                self.show(Said(printable(event.content), "earlier"))
        if last:
            self._close(history[end - 1])
        for event in history[:end]:
            if isinstance(event, events.User) and event.id and event.id not in answered:
                self._event(event)
        for event in history[end:]:
            self._event(event)

    def _event(self, event: events.Event, truncated: bool = False) -> None:
        if self._history is not None:
            if not self._is_running(event):
                self._history.append(event)
                return
            self.open_history()
        match event:
            case events.User(content=content, id=id) if id not in self._own:
                self._wait(id, Said(printable(content), "elsewhere"))
            case events.Assistant():
                self._close(event)
            case events.ToolCall(name=name, call_id=str(call_id)) if call_id not in self._tools:
                self._tool(call_id, name, "started")
            case events.ToolResult(name=name, call_id=str(call_id), ok=ok):
                self._tool(call_id, name, "failed" if ok is False else "finished")
            case events.System():
                self._system(event)
        if truncated:
            self.show(Faint("… (too long to be shown whole)"))

    def _is_running(self, event: events.Event) -> bool:
        """Whether the event ends the turn that was running at the welcome: it is news, not history."""
        turn = event.turn if isinstance(event, events.Assistant | events.System) else None
        return turn is not None and turn == self.turn and events.closes(event) is not None

    def _system(self, event: events.System) -> None:
        match event.name:
            case "turn_failed":
                self._close(event)
            case "approval":
                self._decided(event)
            case "steered":
                self._answering |= frozenset(event.messages or ())
                self._release(event.messages or ())
            case "reset" if event.id not in self._own:
                self.show(Faint("— a new conversation —"))
            case "note" if event.content:
                self.show(Faint(printable(event.content)))

    def _close(self, event: events.Event) -> None:
        """Show what the agent said, with its mark if it ended otherwise than well; or why it said nothing."""
        answers = events.closes(event)
        self._release(answers or ())
        self._open.difference_update(answers or ())
        self._end_tools()
        if isinstance(event, events.Assistant):
            self._reply(event)
        elif isinstance(event, events.System):
            self.show(Trouble(printable(event.content or "The turn failed.")))
        if answers is not None and isinstance(event, events.Assistant | events.System):
            self.closed += 1
            self.asked = {id: asked for id, asked in self.asked.items() if asked.turn != event.turn}
            if self.turn == event.turn:
                self.turn = None
            if self.draft and self.draft.turn == event.turn:
                self.draft = None

    def _end_tools(self) -> None:
        if self._tools:
            self.show(Faint("⚙ " + self.tools))
            self._tools.clear()

    def _reply(self, event: events.Assistant) -> None:
        draft = self.draft if self.draft and self.draft.turn == event.turn else Draft("")
        reply, anew = draft.finish(event.content)
        if anew:
            self.show(Faint("— the reply was begun anew —"))
        if reply.source.strip():
            self.show(reply)
        if event.finish in _ENDINGS:
            self.show(Faint(f"— {_ENDINGS[event.finish]} —"))

    # -- messages --------------------------------------------------------------------------------

    def _wait(self, id: str | None, said: Said, *, now: bool = False) -> None:
        """Show the message where nothing is ahead of it; otherwise when its turn begins."""
        idle = self.online and self.turn is None and not self.queued
        if id is not None and not now:
            self._open.add(id)
        if now or id is None or idle or id in self._answering:
            self.show(said)
        else:
            self.queued[id] = said

    def _release(self, ids: Iterable[str]) -> None:
        for id in ids:
            if said := self.queued.pop(id, None):
                self.show(said)
