"""What `lunar chat` is: it decides between the terminal and a single answer, and owns the exit code."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit, urlunsplit

from channels import wire
from channels.cli import oneshot
from channels.cli.carrier import DATA, USAGE, CannotChat, Carrier, open_socket, open_web, without_password
from channels.cli.link import Link, Memory, Pace
from channels.cli.output import Frames, Piped, Shown
from channels.cli.printable import printable

_CANNOT_WRITE = 74  # EX_IOERR
_NOBODY_READS = 141  # 128 + SIGPIPE, as a shell reports it
_LOCAL = Pace(most=1.0)  # asking again costs nothing on the same machine
_SESSION = re.compile(r"[a-z0-9_.-]{1,64}")
_FORM = "an address is like ws://host:8420/ws or wss://host/ws."
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@dataclass(frozen=True)
class Target:
    """Which gateway: the daemon's Unix socket, or the `url` of a WebSocket with its `token`."""

    socket: Path | None
    url: str | None = None
    token: str | None = None


def chat(
    target: Target,
    *,
    text: str | None,
    session: str = "local",
    as_json: bool = False,
    state_dir: Path,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Chat with a gateway and return the exit code (see `oneshot`); runs its own event loop.

    With `text`, with a `stdin` that is no terminal, and with `as_json`, one question is answered; otherwise
    a conversation begins. `state_dir` holds the history and the secrets of remote sessions.
    """
    # Where a descriptor was closed by whoever started us, sys has None.
    stdin, stdout = stdin or sys.stdin or io.StringIO(), stdout or sys.stdout or io.StringIO()
    stderr = stderr or sys.stderr or io.StringIO()
    try:
        link = _link(target, session, state_dir)
        if text is None and not as_json and stdin.isatty():
            return asyncio.run(_converse(link, state_dir, stdin, stdout))
        out = Frames if as_json else Shown if stdout.isatty() else Piped
        question = _question(text if text is not None else _read(stdin))
        return asyncio.run(oneshot.ask(link, question, out(stdout, stderr)))
    except CannotChat as problem:
        stderr.write(f"lunar: {printable(problem.public)}\n")
        return problem.exit_code
    except KeyboardInterrupt:
        return oneshot.STOPPED
    except BrokenPipeError:
        # What is still buffered would fail once more, with a traceback, when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return _NOBODY_READS
    except OSError as error:
        stderr.write(f"lunar: The answer cannot be written: {error.strerror or error}.\n")
        return _CANNOT_WRITE


def _link(target: Target, session: str, state_dir: Path) -> Link:
    if not _SESSION.fullmatch(session):
        raise CannotChat(f"--session {session!r}: a name has 1 to 64 of a-z, 0-9, _, . and -.", USAGE)
    dial: Callable[[], Awaitable[Carrier]]
    memory: Memory | None = None
    if target.url is not None:
        from channels.cli.secret import SecretFile

        url = _web_address(target.url)
        dial, memory = partial(open_web, url), SecretFile(state_dir, url, session)
    elif target.socket is not None:
        dial = partial(open_socket, target.socket)
    else:
        raise CannotChat("Neither a socket nor an address of a gateway is given.", USAGE)
    hello = wire.Hello(protocol=wire.PROTOCOL, session=session, token=target.token, client="lunar chat")
    return Link(dial, hello, memory=memory, pace=Pace() if target.url else _LOCAL)


def _web_address(url: str) -> str:
    """The WebSocket's address; that of the chat page stands for it too."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError as error:  # whose words may hold a piece of a password
        raise CannotChat(f"--url {without_password(url)}: {_FORM}", USAGE) from error
    if parts.scheme not in _SCHEMES or not host:
        raise CannotChat(f"--url {without_password(url)}: {_FORM}", USAGE)
    path = parts.path if parts.path.strip("/") else "/ws"
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))


def _read(stdin: TextIO) -> str:
    """All of stdin, as far as a message may be long; raises `CannotChat` where it is not UTF-8."""
    data = (
        stdin.buffer.read(wire.MAX_TEXT + 2)
        if hasattr(stdin, "buffer")
        else stdin.read().encode("utf-8", "replace")
    )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if error.start >= wire.MAX_TEXT - 3:
            return data.decode(errors="replace")  # a character cut by the limit, which is told below
        raise CannotChat(f"The text on stdin is not UTF-8 (byte {error.start}).", DATA) from error


def _question(text: str) -> str:
    text = text.encode("utf-8", "replace").decode().rstrip("\r\n")
    if not text.strip():
        raise CannotChat('There is nothing to ask: `lunar chat "text"`, or text on stdin.', USAGE)
    if len(text.encode()) > wire.MAX_TEXT:
        raise CannotChat(f"The text has more than {wire.MAX_TEXT // 1024} KiB, the most a message may.", DATA)
    return text


async def _converse(link: Link, state_dir: Path, stdin: TextIO, stdout: TextIO) -> int:
    if os.environ.get("TERM", "") in ("", "dumb", "unknown") or not stdout.isatty():
        from channels.cli.plain import PlainTerminal

        return await PlainTerminal(link, stdin, stdout).run()
    from channels.cli.terminal import Terminal

    return await Terminal(link, state_dir / "history", stdin, stdout).run()
