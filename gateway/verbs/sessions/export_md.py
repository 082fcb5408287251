"""A conversation as Markdown: what was said as it was written, what tools did as code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.verbs.sessions.printing import UNFINISHED, local, printable, value
from session.events import Assistant, Event, System, ToolCall, ToolResult, Unknown, User
from session.ids import SessionId

_FENCE = re.compile(r"^`{3,}", re.MULTILINE)


def pieces(session: SessionId, said: Iterator[tuple[Event, bytes]]) -> Iterator[str]:
    """The document, a message at a time; the header of the transcript is its title."""
    yield f"# {_line(session)}\n"
    for event, _ in said:
        if text := _message(event):
            yield "\n" + printable(text) + "\n"


def _message(event: Event) -> str | None:
    time = local(event.ts).strip()
    when = f", {time}" if time else ""
    match event:
        case User(content=content):
            return f"## You{when}\n\n{content}"
        case Assistant(content=content, finish=finish, model=model):
            by = f" ({_line(model)})" if model else ""
            mark = f"\n\n*[{finish}]*" if finish in UNFINISHED else ""
            return f"## Assistant{by}{when}\n\n{content}{mark}"
        case ToolCall(name=name, args=args):
            return f"**Tool** `{_line(name)}`\n\n{_code(value(args))}"
        case ToolResult(name=name, result=result, ok=ok):
            return f"**{'Failed' if ok is False else 'Result'}** `{_line(name)}`\n\n{_code(value(result))}"
        case System(name="session" | "started" | "sent" | "delivered"):
            return None
        case System(name=name, content=content):
            return f"*{_line(name)}{': ' + _line(content) if content else ''}{when}*"
        case Unknown(data=data):
            return _code(value(data))


def _line(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    """A fence that nothing in the text can close."""
    longest = max((len(found.group()) for found in _FENCE.finditer(text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
