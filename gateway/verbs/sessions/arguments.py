"""What `lunar sessions` takes; each verb is imported when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gateway.errors import BadArgument

Runner = Callable[[argparse.Namespace], int]
_FORMATS = ("md", "json", "html")
_ROLES = ("user", "assistant", "tool", "system", "other")


class Verbs(Protocol):
    """Commands below another one."""

    def add(self, name: str, help: str, run: Runner | None = None) -> argparse.ArgumentParser:
        """Add one and return its parser."""


def add(verbs: Verbs) -> None:
    """Add every verb of `lunar sessions`."""
    listing = verbs.add("list", "list all sessions, latest first", _list)
    show = verbs.add("show", "print a transcript", _show)
    tail = verbs.add("tail", "print the end of a transcript", _tail)
    search = verbs.add("search", "find what was said", _search)
    export = verbs.add("export", "write a conversation as a document, or many as they are stored", _export)
    import_ = verbs.add("import", "take in what `export --to` wrote, or another data directory", _import)
    verify = verbs.add("verify", "read every line and name the damaged ones", _verify)
    archive = verbs.add("archive", "compress conversations that nobody goes on with", _archive)
    stats = verbs.add("stats", "count sessions, messages and tokens", _stats)
    delete = verbs.add("delete", "remove a transcript for good", _delete)
    for made in (listing, show, tail, search, verify):
        made.add_argument("--json", action="store_true", help="print JSON, one object a line")
    stats.add_argument("--json", action="store_true", help="print JSON")
    for made in (show, tail, delete):
        made.add_argument(
            "session", metavar="SESSION", help="a session id, or the name of a local conversation"
        )
    verify.add_argument("session", metavar="SESSION", nargs="*", help="which ones (default: all)")
    archive.add_argument("session", metavar="SESSION", nargs="*", help="which ones")
    tail.add_argument(
        "-n", "--lines", type=int, default=10, metavar="N", help="how many events (default: 10)"
    )
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what is added")
    _search_arguments(search)
    export.add_argument(
        "session", metavar="SESSION", nargs="*", help="which one; with --to which ones (default: all)"
    )
    export.add_argument("--to", metavar="DIR", help="a data directory that is made, or added to")
    import_.add_argument("source", metavar="DIR", help="where it has a folder `sessions`, `archive` or both")
    import_.add_argument("session", metavar="SESSION", nargs="*", help="which ones (default: all)")
    export.add_argument("--format", choices=_FORMATS, help="md, json or html (default: as the file is named)")
    export.add_argument("--output", metavar="FILE", help="the file to write (default: stdout, as Markdown)")
    archive.add_argument(
        "--days", type=float, metavar="N", help="all in which nothing was said for so many days"
    )
    delete.add_argument("--yes", action="store_true", help="do not ask")


def _search_arguments(search: argparse.ArgumentParser) -> None:
    search.add_argument("text", metavar="TEXT", help="what to look for, in either case of letters")
    search.add_argument("--regex", action="store_true", help="TEXT is a regular expression")
    search.add_argument("--case", action="store_true", help="capital letters count")
    search.add_argument("--role", choices=_ROLES, help=f"only what is of one of {', '.join(_ROLES)}")
    search.add_argument(
        "--session", action="append", default=[], metavar="SESSION", help="only there; may be repeated"
    )


def _list(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import listing

    return listing.main(args.config, args.json)


def _show(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import show

    return show.main(args.config, args.session, args.json)


def _tail(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import tail

    lines = min(max(0, args.lines), sys.maxsize)
    return tail.main(args.config, args.session, lines, args.follow, args.json)


def _search(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import matching, search

    needle = matching.Needle(args.text, regex=args.regex, case=args.case)
    return search.main(args.config, needle, args.session, args.role, args.json)


def _export(args: argparse.Namespace) -> int:
    if args.to is not None:
        from gateway.verbs.sessions import export_to

        if args.format or args.output:
            raise BadArgument(
                "--to writes every session as it is stored: it takes no --format and no --output."
            )
        return export_to.main(args.config, args.session, Path(args.to))
    from gateway.verbs.sessions import export

    if len(args.session) != 1:
        raise BadArgument("Say which session, or --to DIR for all of them.")
    return export.main(args.config, args.session[0], args.format, args.output)


def _import(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import import_

    return import_.main(args.config, Path(args.source), args.session)


def _verify(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import verify

    return verify.main(args.config, args.session, args.json)


def _archive(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import archive

    return archive.main(args.config, args.session, args.days)


def _stats(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import stats

    return stats.main(args.config, args.json)


def _delete(args: argparse.Namespace) -> int:
    from gateway.verbs.sessions import delete

    return delete.main(args.config, args.session, args.yes)
