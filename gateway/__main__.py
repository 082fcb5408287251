"""The `lunar` command: parsing and nothing else. Each verb imports what it needs when it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from gateway import __version__, streams
from gateway.errors import GatewayError
from gateway.verbs.sessions import arguments as sessions


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(os.EX_USAGE)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()
        super().exit(status, message)


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

    _add_chat(verbs)
    sessions.add(_Verbs(verbs.add("sessions", "look at transcripts, with or without a running gateway")))
    backup = verbs.add(
        "backup", "copy everything that must not be lost, also while the gateway runs", _backup
    )
    backup.add_argument("target", metavar="TARGET", help="a new file .tar.gz, or a new directory")
    restore = verbs.add("restore", "bring a backup back", _restore)
    restore.add_argument("source", metavar="SOURCE", help="what `lunar backup` made")
    restore.add_argument("--force", action="store_true", help="move what is there aside")

    status = verbs.add("status", "ask the running gateway how it is", _status)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument("--watch", action="store_true", help="again every two seconds, until Ctrl-C")
    _add_usage(verbs)
    _add_pairing(_Verbs(verbs.add("pairing", "say who may talk to the running gateway's Telegram bot")))
    check = verbs.add(
        "check", "look for problems: configuration, disk, port, secrets, model, Telegram", _check
    )
    check.add_argument("--json", action="store_true", help="print JSON, one object a line")
    check.add_argument("--offline", action="store_true", help="ask no model, and nobody elsewhere")
    _add_config(_Verbs(verbs.add("config", "look at the configuration")))
    reload = verbs.add("reload", "let the running gateway read its configuration again", _reload)
    reload.add_argument("--json", action="store_true", help="print JSON")
    _add_service(_Verbs(verbs.add("service", "run the gateway under systemd")))
    return lunar


def _add_chat(verbs: _Verbs) -> None:
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


def _add_usage(verbs: _Verbs) -> None:
    usage = verbs.add("usage", "say what models took, with or without a running gateway", _usage)
    usage.add_argument(
        "--days", type=int, default=7, metavar="N", help="of the last N days, today included (default: 7)"
    )
    usage.add_argument(
        "--by",
        choices=("day", "agent", "session", "model"),
        default="day",
        metavar="KEY",
        help="the rows: day (default), agent, session or model",
    )
    usage.add_argument("--json", action="store_true", help="print JSON")


def _add_config(verbs: _Verbs) -> None:
    show = verbs.add("show", "print every key with its value and where that comes from", _config_show)
    show.add_argument("--json", action="store_true", help="print JSON")
    verbs.add("schema", "print the JSON Schema of config.yaml, for editors", _config_schema)


def _add_service(verbs: _Verbs) -> None:
    install = verbs.add("install", "install, enable and start the units", _service_install)
    uninstall = verbs.add("uninstall", "stop and remove the units; the data stays", _service_uninstall)
    status = verbs.add("status", "tell what is installed, and what systemd says of it", _service_status)
    shown = verbs.add("print", "print the files that `install` would write", _service_print)
    for made in (install, uninstall, status, shown):
        made.add_argument("--user", action="store_true", help="for this user alone, without root")
    for made in (install, uninstall):
        made.add_argument("--dry-run", action="store_true", help="only show what would be done")


def _run(args: argparse.Namespace) -> int:
    from gateway.verbs import run

    return run.main(args.config, args.verbose)


def _chat(args: argparse.Namespace) -> int:
    from gateway.verbs import chat

    target = chat.target(args.config, args.socket, args.url, args.token_file)
    return chat.main(target, args.text, args.session, args.json)


def _status(args: argparse.Namespace) -> int:
    from gateway.verbs import status

    return status.main(args.config, args.json, args.watch)


def _usage(args: argparse.Namespace) -> int:
    from gateway.verbs import usage

    return usage.main(args.config, args.days, args.by, args.json)


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


def _service_install(args: argparse.Namespace) -> int:
    from gateway.verbs import service

    return service.install(args.config, args.user, args.dry_run)


def _service_uninstall(args: argparse.Namespace) -> int:
    from gateway.verbs import service

    return service.uninstall(args.user, args.dry_run)


def _service_status(args: argparse.Namespace) -> int:
    from gateway.verbs import service

    return service.status(args.config, args.user)


def _service_print(args: argparse.Namespace) -> int:
    from gateway.verbs import service

    return service.print_(args.config, args.user)


def _config_show(args: argparse.Namespace) -> int:
    from gateway.verbs import config

    return config.show(args.config, args.json)


def _config_schema(args: argparse.Namespace) -> int:
    from gateway.verbs import config

    return config.schema()


def _reload(args: argparse.Namespace) -> int:
    from gateway.verbs import reload

    return reload.main(args.config, args.json)


def _check(args: argparse.Namespace) -> int:
    from gateway.verbs import check

    return check.main(args.config, args.json, args.offline)


def _backup(args: argparse.Namespace) -> int:
    from gateway.verbs import backup

    return backup.main(args.config, args.target)


def _restore(args: argparse.Namespace) -> int:
    from gateway.verbs import restore

    return restore.main(args.config, args.source, args.force)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (sysexits)."""
    streams.prepare()
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        parser().print_help(sys.stderr)
        return os.EX_USAGE
    try:
        args = parser().parse_args(arguments)
        code: int = args.run(args)
        sys.stdout.flush()
    except GatewayError as error:
        code = _failed(str(error), error.exit_code)
    except BrokenPipeError:
        code = 0  # whoever read the output has enough
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        if error.filename is not None:
            raise
        code = _failed(error.strerror or str(error), os.EX_IOERR)  # the output, such as on a full disk
    streams.settle()
    return code


def _failed(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"lunar: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
