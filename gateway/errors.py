"""What stops the daemon or a command, and the exit code (sysexits) that says so.

GatewayError
├── BadArgument         64  the command line asks for what cannot be
├── ConfigError         78  the configuration is wrong: one line per problem
├── NotRunning          69  no daemon answers
├── CannotCreate        73  a directory or file cannot be made or written
├── Unreadable          74  a transcript cannot be read
├── Held                75  another process holds the lock, the port or the socket
├── NotPermitted        77  this user may not ask the daemon for that
└── NoSuchSession        1  asked for a session that does not exist
"""

from __future__ import annotations

import os


class GatewayError(Exception):
    """Base of what ends a command; the text is the whole message."""

    exit_code = 1


class BadArgument(GatewayError):
    """The command line is well formed and makes no sense."""

    exit_code = os.EX_USAGE


class ConfigError(GatewayError):
    """Everything that is wrong with the configuration; `problems` has one line each."""

    exit_code = os.EX_CONFIG

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NotRunning(GatewayError):
    """No daemon listens where it should."""

    exit_code = os.EX_UNAVAILABLE


class CannotCreate(GatewayError):
    """A file or directory that we need cannot be made or written."""

    exit_code = os.EX_CANTCREAT


class Unreadable(GatewayError):
    """The disk or its permissions keep a transcript from us."""

    exit_code = os.EX_IOERR


class Held(GatewayError):
    """What we need belongs to another process just now."""

    exit_code = os.EX_TEMPFAIL


class NotPermitted(GatewayError):
    """The socket is closed to this user, or the verb is for operators only."""

    exit_code = os.EX_NOPERM


class NoSuchSession(GatewayError):
    """There is no transcript of that name."""
