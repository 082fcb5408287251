"""A conversation as one HTML file: nothing is loaded, nothing runs, light and dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from pathlib import Path

from channels.webchat import html
from gateway.verbs.sessions.printing import UNFINISHED, local, printable, value
from session.events import Assistant, Event, System, ToolCall, ToolResult, Unknown, User, now
from session.ids import SessionId

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{hash}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>Exported {when}</p></header>
<main>
"""
_HIDDEN = {"session", "started", "sent", "delivered"}


def pieces(session: SessionId, said: Iterator[tuple[Event, bytes]]) -> Iterator[str]:
    """The document, a message at a time; replies and messages go through the chat page's two walls."""
    style = Path(__file__).with_name("export.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    yield _PAGE.format(hash=digest, style=style, title=_text(session), when=local(now()))
    for event, _ in said:
        yield _message(event)
    yield "</main>\n</body>\n</html>\n"


def _message(event: Event) -> str:
    match event:
        case User(content=content):
            return _article("you", "You", content, event.ts)
        case Assistant(content=content, finish=finish, model=model):
            mark = f" [{finish}]" if finish in UNFINISHED else ""
            return _article(
                "assistant", f"Assistant{f' ({model})' if model else ''}{mark}", content, event.ts
            )
        case ToolCall(name=name, args=args):
            return _details(f"Tool: {name}", value(args))
        case ToolResult(name=name, result=result, ok=ok):
            return _details(f"{'Failed' if ok is False else 'Result'}: {name}", value(result))
        case System(name=name) if name in _HIDDEN:
            return ""
        case System(name=name, content=content):
            failed = " failed" if name in ("turn_failed", "delivery_failed") else ""
            return f'<p class="note{failed}">{_text(content or name)}</p>\n'
        case Unknown(data=data):
            return _details("Something else", value(data))


def _article(kind: str, who: str, content: str, ts: str) -> str:
    when = f'<time datetime="{_text(ts)}">{_text(local(ts))}</time>'
    body = html.render(printable(content))
    return (
        f'<article class="{kind}"><p class="who"><b>{_text(who)}</b> {when}</p>\n'
        f'<div class="body">{body}</div></article>\n'
    )


def _details(title: str, content: str) -> str:
    return f"<details><summary>{_text(title)}</summary><pre>{_text(content)}</pre></details>\n"


def _text(text: str) -> str:
    return escape(printable(text))
