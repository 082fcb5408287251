"""The table of verbs that operators may use on a running daemon, over the Unix socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from channels.errors import Refused
from gateway.about import About
from gateway.router import Router
from session import ids
from session.errors import BadSessionId

Verb = Callable[["Controls", Mapping[str, Any]], Awaitable[Any]]


async def _status(controls: Controls, args: Mapping[str, Any]) -> Any:
    return controls.about.gateway(lambda: list(controls.router.lanes))


async def _delete(controls: Controls, args: Mapping[str, Any]) -> Any:
    session = args.get("session")
    if not isinstance(session, str):
        raise Refused("bad_frame", "delete needs args.session, a session id.")
    try:
        ids.parse(session)
    except BadSessionId as error:
        raise Refused("not_found", str(error)) from error
    return {"deleted": await controls.router.delete_session(ids.SessionId(session))}


VERBS: dict[str, Verb] = {"status": _status, "delete": _delete}


class Controls:
    """A `channels.base.Control`."""

    def __init__(self, router: Router, about: About) -> None:
        self.router = router
        self.about = about

    async def control(self, verb: str, args: Mapping[str, Any]) -> Any:
        """Carry out a verb and return its data; raises `Refused`."""
        if verb not in VERBS:
            raise Refused("not_found", f"There is no verb {verb!r}. The verbs are: {', '.join(VERBS)}.")
        return await VERBS[verb](self, args)
