"""One person's side of the conversation: what they type goes to the link, what it hears to the view."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import aclosing

from channels import wire
from channels.cli.link import MAX_WAITING, Link, Received
from channels.cli.printable import first_line, printable
from channels.cli.view import Faint, Trouble, View

# For completion only: which there are and what they do is the gateway's to say.
GATEWAY_COMMANDS = (
    "/compact",
    "/help",
    "/model",
    "/new",
    "/queue",
    "/retry",
    "/status",
    "/stop",
    "/undo",
)
OWN_COMMANDS = ("/exit", "/no", "/yes")

_WORD = re.compile(r"/(yes|no)(?:\s+(\d{1,9}))?\s*")
_HELP = """In this terminal:
/exit    leave, as Ctrl-D does
Enter    send; Alt+Enter or Ctrl-J begins a new line
Ctrl-C   stop the reply, or clear the line
Up       what you said before; Ctrl-R searches it
Tab      complete a command"""


class Chat:
    """What every face of the client shares."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.view = View()

    async def listen(self, welcomed: Callable[[], None], changed: Callable[[], None]) -> None:
        """Follow the session; call `welcomed` at each welcome and `changed` after all news.

        Raises `CannotChat`.
        """
        async with aclosing(self.link.listen()) as heard:
            async for item in heard:
                self.view.hear(item)
                if isinstance(item, Received):
                    if isinstance(item.frame, wire.Welcome):
                        welcomed()
                    if isinstance(item.frame, wire.Notice) and item.settled and _is(item.settled, "/help"):
                        self.view.show(Faint(_HELP))
                changed()

    def enter(self, text: str) -> bool:
        """Take what the person entered; return whether it is done with, and can leave the line."""
        text = text.encode("utf-8", "replace").decode().rstrip()
        if word := _WORD.fullmatch(text):
            self._decide(allow=word[1] == "yes", number=word[2])
        elif len(text.encode()) > wire.MAX_TEXT:
            self.view.show(Trouble(f"Not sent: a message may have at most {wire.MAX_TEXT // 1024} KiB."))
            return False
        elif len(self.link.unsettled) >= MAX_WAITING:
            self.view.show(Trouble(f"Not sent: {MAX_WAITING} messages wait for the gateway already."))
            return False
        elif text.strip():
            self.view.say(self.link.say(text), printable(text))
        return True

    def _decide(self, *, allow: bool, number: str | None) -> None:
        """Answer by the call, not by the word: what the gateway asks meanwhile is not meant."""
        asked = list(self.view.asked.values())
        meant = [one for one in asked if number is None or one.number == int(number)]
        if not meant:
            self.view.show(Faint("That is not being asked." if asked else "Nothing is being asked."))
        elif len(meant) > 1:
            word = "/yes" if allow else "/no"
            choice = " or ".join(f"{word} {one.number} ({printable(one.name)})" for one in meant)
            self.view.show(Faint(f"Which one? {choice}"))
        elif self.link.send(wire.Approve(call_id=meant[0].call_id, allow=allow)):
            del self.view.asked[meant[0].call_id]
            name = printable(meant[0].name)
            self.view.show(Faint(f"{name} may run." if allow else f"{name} may not run."))
        else:
            self.view.show(Trouble("The gateway is away: answer again when the connection is back."))

    def interrupt(self) -> None:
        """Ctrl-C where there is nothing to clear: stop what runs, or tell the way out."""
        if self.view.busy:
            self.link.stop()
        else:
            self.view.show(Faint("Ctrl-D or /exit leaves."))

    def unsent(self) -> list[str]:
        """What to tell the person who leaves while messages wait: one line each."""
        return [
            f"{'No word yet whether this arrived' if self.link.was_sent(message.id) else 'Not sent'}: "
            f"{first_line(printable(message.text), 60)}"
            for message in self.link.unsettled.values()
        ]


def leaves(text: str) -> bool:
    """Whether the person wants to go."""
    return text.strip() in ("/exit", "/quit")


def _is(message: wire.Message, command: str) -> bool:
    return message.text.strip() == command
