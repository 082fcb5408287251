"""The table of verbs that operators may use on a running daemon, over the Unix socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from channels.errors import Refused
from gateway.about import About
from gateway.errors import ConfigError
from gateway.journal import readable
from gateway.reload import Outcome
from gateway.router import Router
from session import ids
from session.errors import BadSessionId

Verb = Callable[["Controls", Mapping[str, Any]], Awaitable[Any]]


async def _status(controls: Controls, args: Mapping[str, Any]) -> Any:
    return await controls.about.report(lambda: list(controls.router.lanes))


async def _delete(controls: Controls, args: Mapping[str, Any]) -> Any:
    return {"deleted": await controls.router.delete_session(_session("delete", args))}


async def _archive(controls: Controls, args: Mapping[str, Any]) -> Any:
    session = _session("archive", args)
    with readable(session):
        why = await controls.router.archive(session)
    return {"archived": why is None, "why": why}


def _session(verb: str, args: Mapping[str, Any]) -> ids.SessionId:
    session = args.get("session")
    if not isinstance(session, str):
        raise Refused("bad_frame", f"{verb} needs args.session, a session id.")
    try:
        ids.parse(session)
    except BadSessionId as error:
        raise Refused("not_found", str(error)) from error
    return ids.SessionId(session)


async def _pairing(controls: Controls, args: Mapping[str, Any]) -> Any:
    if controls.strangers is None:
        raise Refused("not_found", "No channel with pairing is running: is there a Telegram bot token?")
    match args:
        case {"approve": str(code)}:
            approved, said = await controls.strangers.approve(code)
            return {"approved": approved, "said": said}
        case {"revoke": str(peer)}:
            return {"revoked": await controls.strangers.revoke(peer)}
    return await controls.strangers.known()


async def _nothing_to_read() -> Outcome:
    return Outcome([], [])


async def _reload(controls: Controls, args: Mapping[str, Any]) -> Any:
    try:
        outcome = await controls.reload()
    except ConfigError as error:
        return {"problems": error.problems, "changed": [], "waiting": []}
    changed = [change._asdict() for change in outcome.changed]
    return {"problems": [], "changed": changed, "waiting": outcome.waiting}


VERBS: dict[str, Verb] = {
    "status": _status,
    "delete": _delete,
    "archive": _archive,
    "pairing": _pairing,
    "reload": _reload,
}


class Strangers(Protocol):
    """People who want to be let in: `gateway.strangers.Strangers`."""

    async def approve(self, code: str) -> tuple[bool, str]:
        """Let in whoever was told this code; returns whether that worked, and what to say."""

    async def revoke(self, peer: str) -> bool:
        """Let a peer in no more; False where it was not let in."""

    async def known(self) -> dict[str, Any]:
        """Who waits with a code, and who was let in."""


class Controls:
    """A `channels.base.Control`."""

    def __init__(self, router: Router, about: About) -> None:
        self.router = router
        self.about = about
        # Set by the daemon: reads the configuration again, or raises `ConfigError`.
        self.reload: Callable[[], Awaitable[Outcome]] = _nothing_to_read
        self.strangers: Strangers | None = None  # set where a channel with pairing is configured

    async def control(self, verb: str, args: Mapping[str, Any]) -> Any:
        """Carry out a verb and return its data; raises `Refused`."""
        if verb not in VERBS:
            raise Refused("not_found", f"There is no verb {verb!r}. The verbs are: {', '.join(VERBS)}.")
        return await VERBS[verb](self, args)
