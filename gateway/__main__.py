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


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument(
        "--config", metavar="FILE", help="the configuration (default: ./config.yaml and others)"
    )
    parser = _Parser(prog="lunar", description="A gateway between people and an AI agent.")
    parser.add_argument("--version", action="version", version=f"lunar {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="", required=True)

    def verb(name: str, help: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=help, parents=[common])
        made.set_defaults(run=run)
        return made

    run = verb("run", "run the gateway in the foreground", _run)
    run.add_argument("--verbose", action="store_true", help="log more")

    chat = verb("chat", "talk to the running gateway", _chat)
    chat.add_argument("text", nargs="?", help="say this, print the answer and leave (also from a pipe)")
    chat.add_argument(
        "--session", default="local", metavar="NAME", help="which conversation (default: local)"
    )
    chat.add_argument(
        "--socket", metavar="PATH", help="the gateway's socket (default: from the configuration)"
    )
    chat.add_argument("--json", action="store_true", help="print the protocol's frames")

    _sessions(verb("sessions", "look at transcripts, with or without a running gateway", _no_verb), common)

    status = verb("status", "ask the running gateway how it is", _status)
    status.add_argument("--json", action="store_true", help="print JSON")
    verb("check", "look for problems in the configuration", _check)
    return parser


def _sessions(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="commands", metavar="", required=True)

    def verb(name: str, help: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=help, parents=[common])
        made.set_defaults(run=run)
        return made

    listing = verb("list", "list all sessions, latest first", _list)
    show = verb("show", "print a transcript", _show)
    verify = verb("verify", "read every line and name the damaged ones", _verify)
    delete = verb("delete", "remove a transcript for good", _delete)
    for made in (listing, show, verify):
        made.add_argument("--json", action="store_true", help="print JSON lines")
    for made in (show, delete):
        made.add_argument("session", help="a session id, or the name of a local conversation")
    verify.add_argument("session", nargs="*", help="session ids (default: all)")
    delete.add_argument("--yes", action="store_true", help="do not ask")


def _run(args: argparse.Namespace) -> int:
    from gateway.verbs import run

    return run.main(args.config, args.verbose)


def _chat(args: argparse.Namespace) -> int:
    from gateway.verbs import chat

    return chat.main(args.config, args.socket, args.text, args.session, args.json)


def _status(args: argparse.Namespace) -> int:
    from gateway.verbs import status

    return status.main(args.config, args.json)


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


def _no_verb(args: argparse.Namespace) -> int:
    raise AssertionError("argparse requires a subcommand")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (sysexits)."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except GatewayError as error:
        print(f"lunar: {error}", file=sys.stderr)
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
