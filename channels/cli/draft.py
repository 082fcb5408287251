"""A reply while it is written: what it says so far, and how much of that is on the screen for good."""

from __future__ import annotations

from dataclasses import dataclass, field

from channels.cli.printable import printable


@dataclass(frozen=True)
class Reply:
    """Markdown to be shown.

    `lead` is the line that opens the code block in which it begins; `joined`: no blank line before it, since
    it goes on with a block that is on the screen already.
    """

    source: str
    lead: str = ""
    joined: bool = False


@dataclass
class Draft:
    """The text of a turn since its last stored event.

    A reply longer than the screen is shown for good from its beginning while its end is still written. A turn
    that is run again may then say something else, which the end of the reply tells.
    """

    turn: str
    text: str = ""
    snapshot: bool = False  # `text` came with a welcome: events that are older than it may follow
    _shown: str = field(default="", init=False)
    _lead: str = field(default="", init=False)
    _joined: bool = field(default=False, init=False)

    def add(self, text: str) -> None:
        """Take more of the reply."""
        self.text += printable(text)

    def again(self, text: str = "", *, snapshot: bool = False) -> None:
        """The reply begins anew, or after a lost connection at `text`; what is on the screen stays."""
        self.text, self.snapshot = printable(text), snapshot

    @property
    def rest(self) -> Reply:
        """What is not on the screen for good."""
        if self.text.startswith(self._shown):
            return Reply(self.text[len(self._shown) :], self._lead, self._joined)
        return Reply("") if self._shown.startswith(self.text) else Reply(self.text)

    @property
    def may_keep(self) -> bool:
        """Whether what is on the screen for good is the beginning of the reply."""
        return self.text.startswith(self._shown)

    def keep(self, length: int, lead: str = "", *, joined: bool = False) -> Reply:
        """Take so many characters of `rest` to the screen; `lead` and `joined` are those of the next rest."""
        rest = self.rest
        self._shown += rest.source[:length]
        self._lead, self._joined = lead, joined
        return Reply(rest.source[:length], rest.lead, rest.joined)

    def finish(self, content: str) -> tuple[Reply, bool]:
        """Take the stored text of the reply: what of it is to be shown, and whether that is all anew."""
        content = printable(content)
        older = self.snapshot and not content.startswith(self.text)
        anew = not content.startswith(self._shown)
        reply = Reply(content) if anew else Reply(content[len(self._shown) :], self._lead, self._joined)
        self.text = self.text if older else ""
        self._shown, self._lead, self._joined = "", "", False
        return reply, anew
