"""Which replies of a push channel are still on their way: folded from the transcript, event by event."""

from __future__ import annotations

from session.events import Assistant, Event, System, closes

_TRIES = 3  # deliveries that failed for good, after which a reply is given up


class Reply:
    """What one turn said, and what was sent of it; `finish` is None until the turn is closed."""

    def __init__(self, turn: str) -> None:
        self.turn = turn
        self.answers: tuple[str, ...] = ()
        self.texts: list[str] = []
        self.finish: str | None = None
        self.sent: list[System] = []
        self.failures = 0


class Replies:
    """The replies without `delivered`, oldest first. `apply` must get every stored event, in order."""

    def __init__(self) -> None:
        self.address: str | None = None  # where the peer has moved to
        self._replies: dict[str, Reply] = {}

    def apply(self, event: Event) -> None:
        """Take in one stored event."""
        match event:
            case Assistant(turn=str(turn), content=content):
                self._say(turn, content)
            case System(name="turn_failed", turn=str(turn), content=content):
                self._say(turn, content or "")
            case System(name="sent", turn=str(turn)):
                self._reply(turn).sent.append(event)
            case System(name="delivered", turn=str(turn)):
                self._replies.pop(turn, None)
            case System(name="delivery_failed", turn=str(turn)):
                self._fail(turn, final=bool(event.final))
            case System(name="address", chat=str(chat)):
                self.address = chat
        if isinstance(event, Assistant | System) and event.turn and (answers := closes(event)):
            reply = self._reply(event.turn)
            reply.answers = answers
            reply.finish = (event.finish or "stop") if isinstance(event, Assistant) else "failed"

    def _reply(self, turn: str) -> Reply:
        return self._replies.setdefault(turn, Reply(turn))

    def _say(self, turn: str, text: str) -> None:
        reply = self._reply(turn)
        if text:
            reply.texts.append(text)

    def _fail(self, turn: str, *, final: bool) -> None:
        reply = self._reply(turn)
        reply.failures += 1
        if final or reply.failures >= _TRIES:
            del self._replies[turn]

    def undelivered(self) -> list[Reply]:
        """Those of closed turns."""
        return [reply for reply in self._replies.values() if reply.finish is not None]

    def sent(self, turn: str) -> list[System]:
        """What was sent of a turn, closed or not."""
        reply = self._replies.get(turn)
        return list(reply.sent) if reply else []
