"""What the line editor knows: the lines said before, and the names of commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from channels.cli.chat import GATEWAY_COMMANDS, OWN_COMMANDS


class Commands(Completer):
    """The names of commands, for a line that begins with a slash."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield the commands that begin as the text does."""
        text = document.text
        if text.startswith("/"):
            for name in sorted([*GATEWAY_COMMANDS, *OWN_COMMANDS]):
                if name.startswith(text):
                    yield Completion(name, start_position=-len(text))


def history_in(path: Path) -> History:
    """The lines said before, in a file that nobody else can read; in memory where there can be none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


def remember(history: History, text: str) -> None:
    """Keep a line that was said."""
    text = text.encode("utf-8", "replace").decode()  # a key may send what is not UTF-8
    if text.strip():
        try:
            history.append_string(text)
        except OSError:
            pass  # a full disk takes the history, not the conversation
