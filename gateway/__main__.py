"""The `lunar` command: parsing and nothing else. Each verb imports what it needs when it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from gateway import __version__
from gateway.errors import GatewayError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(os.EX_USAGE)


_COMMAND = "COMMAND"
Runner = Callable[[argparse.Namespace], int]


class _Verbs:
    """The commands below `parser`; each takes --config, before its name too."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._verbs = parser.add_subparsers(title="commands", metavar=_COMMAND, required=True)

    def add(self, name: str, help: str, run: Runner | None = None) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = self._verbs.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}."
        )
        _takes_config(made)
        if run is not None:
            made.set_defaults(run=run)
        return made


def _takes_config(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: without it the default of a command would replace what was given before its name.
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the configuration file (default: the first of ./config.yaml, ~/.config/lunar/config.yaml "
        "and /etc/lunar/config.yaml)",
    )


def parser() -> argparse.ArgumentParser:
    """The whole command line; docs/commands.md is checked against it."""
    lunar = _Parser(
        prog="lunar",
        description="A gateway between people and an AI agent.",
        epilog="`lunar COMMAND --help` tells more.",
    )
    lunar.add_argument(
        "--version", action="version", version=f"lunar {__version__}", help="print the version"
    )
    lunar.set_defaults(config=None)
    _takes_config(lunar)
    verbs = _Verbs(lunar)

    run = verbs.add("run", "run the gateway in the foreground", _run)
    run.add_argument("--verbose", action="store_true", help="log more")

    chat = verbs.add("chat", "talk to the running gateway", _chat)
    chat.add_argument("text", nargs="?", help="say this, print the answer and leave (also from a pipe)")
    chat.add_argument(
        "--session", default="local", metavar="NAME", help="which conversation (default: local)"
    )
    chat.add_argument(
        "--socket", metavar="PATH", help="the gateway's socket (default: from the configuration)"
    )
    chat.add_argument("--url", metavar="URL", help="talk to a gateway elsewhere: ws://host:8420/ws")
    chat.add_argument("--token-file", metavar="FILE", help="the file that holds that gateway's token")
    chat.add_argument("--json", action="store_true", help="print the protocol's frames, one a line")

    _add_sessions(_Verbs(verbs.add("sessions", "look at transcripts, with or without a running gateway")))

    status = verbs.add("status", "ask the running gateway how it is", _status)
    status.add_argument("--json", action="store_true", help="print JSON")
    _add_pairing(_Verbs(verbs.add("pairing", "say who may talk to the running gateway's Telegram bot")))
    verbs.add("check", "look for problems in the configuration", _check)
    return lunar


def _add_sessions(verbs: _Verbs) -> None:
    listing = verbs.add("list", "list all sessions, latest first", _list)
    show = verbs.add("show", "print a transcript", _show)
    verify = verbs.add("verify", "read every line and name the damaged ones", _verify)
    delete = verbs.add("delete", "remove a transcript for good", _delete)
    for made in (listing, show, verify):
        made.add_argument("--json", action="store_true", help="print JSON, one object a line")
    for made in (show, delete):
        made.add_argument(
            "session", metavar="SESSION", help="a session id, or the name of a local conversation"
        )
    verify.add_argument("session", metavar="SESSION", nargs="*", help="which ones (default: all)")
    delete.add_argument("--yes", action="store_true", help="do not ask")


def _run(args: argparse.Namespace) -> int:
    from gateway.verbs import run

    return run.main(args.config, args.verbose)


def _chat(args: argparse.Namespace) -> int:
    from gateway.verbs import chat

    target = chat.target(args.config, args.socket, args.url, args.token_file)
    return chat.main(target, args.text, args.session, args.json)


def _status(args: argparse.Namespace) -> int:
    from gateway.verbs import status

    return status.main(args.config, args.json)


def _add_pairing(verbs: _Verbs) -> None:
    listing = verbs.add("list", "list who waits with a code, and who was let in", _pairing_list)
    listing.add_argument("--json", action="store_true", help="print JSON")
    approve = verbs.add("approve", "let in whoever was told a code", _approve)
    approve.add_argument("code", metavar="CODE", help="the code")
    revoke = verbs.add("revoke", "let somebody in no more", _revoke)
    revoke.add_argument("peer", metavar="PEER", help="as `list` shows it, such as user:123456")


def _pairing_list(args: argparse.Namespace) -> int:
    from gateway.verbs import pairing

    return pairing.list_(args.config, args.json)


def _approve(args: argparse.Namespace) -> int:
    from gateway.verbs import pairing

    return pairing.approve(args.config, args.code)


def _revoke(args: argparse.Namespace) -> int:
    from gateway.verbs import pairing

    return pairing.revoke(args.config, args.peer)


def _check(args: argparse.Namespace) -> int:
    from gateway.verbs import check

    return check.main(args.config)


def _list(args: argparse.Namespace) -> int:
    from gateway.verbs import sessions

    return sessions.list_(args.config, args.json)


def _show(args: argparse.Namespace) -> int:
    from gateway.verbs import sessions

    return sessions.show(args.config, args.session, args.json)


def _verify(args: argparse.Namespace) -> int:
    from gateway.verbs import sessions

    return sessions.verify(args.config, args.session, args.json)


def _delete(args: argparse.Namespace) -> int:
    from gateway.verbs import sessions

    return sessions.delete(args.config, args.session, args.yes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (sysexits)."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        parser().print_help(sys.stderr)
        return os.EX_USAGE
    args = parser().parse_args(arguments)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except GatewayError as error:
        for line in str(error).splitlines():
            print(f"lunar: {line}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read the output has enough; nothing may be flushed into the pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    raise SystemExit(main())
