"""One session's live updates, to whoever is watching."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from channels.base import Approval, Delta, Done, Running, Started, Stored, Update
from session.events import Assistant, System

log = structlog.get_logger(__name__)


class Feed:
    """Publish and subscribe within one session. It keeps what the running turn has said so far."""

    __slots__ = ("_approvals", "_said", "_started", "_watchers")

    def __init__(self) -> None:
        self._watchers: tuple[FeedWatch, ...] = ()
        self._started: Started | None = None
        self._said: list[str] = []
        self._approvals: dict[str, Approval] = {}  # those that nobody has answered yet, by call

    def publish(self, update: Update) -> None:
        """Give the update to every watcher, in order, on this tick."""
        match update:
            case Started():
                self._started, self._said = update, []
                self._approvals.clear()
            case Approval():
                self._approvals[update.call_id] = update
            case Stored(record) if isinstance(record.event, System):
                self._note(record.event)
            case Delta():
                self._said.append(update.text)
            case Stored(record) if isinstance(record.event, Assistant):
                self._said.clear()
            case Done():
                self._started, self._said = None, []
                self._approvals.clear()
        for watcher in self._watchers:
            watcher.tell(update)

    def _note(self, event: System) -> None:
        if event.name == "approval":
            self._approvals.pop(event.call_id or "", None)
        elif event.name == "steered" and self._started and event.turn == self._started.turn:
            turn, answers, attempt = self._started.turn, self._started.answers, self._started.attempt
            self._started = Started(turn, answers + (event.messages or ()), attempt)

    @property
    def started(self) -> Started | None:
        """How the turn in progress began."""
        return self._started

    @property
    def running(self) -> Running | None:
        """The turn in progress, as a newcomer needs it."""
        if self._started is None:
            return None
        approvals = tuple(self._approvals.values())
        return Running(self._started.turn, self._started.answers, self.said, approvals)

    @property
    def said(self) -> str:
        """What the running turn has said since its last stored event."""
        return "".join(self._said)

    def watch(self, update: Callable[[Update], None], cursor: str | None) -> FeedWatch:
        """Subscribe from this tick on; `cursor` is the place of the last event published."""
        watcher = FeedWatch(self, update, cursor)
        self._watchers += (watcher,)
        return watcher

    def leave(self, watcher: FeedWatch) -> None:
        """Unsubscribe; a watcher that is gone already does no harm."""
        self._watchers = tuple(other for other in self._watchers if other is not watcher)


class FeedWatch:
    """A `channels.base.Watch`: the state at one tick and the updates after it."""

    __slots__ = ("_feed", "_update", "cursor", "running")

    def __init__(self, feed: Feed, update: Callable[[Update], None], cursor: str | None) -> None:
        self.running = feed.running
        self.cursor = cursor
        self._feed = feed
        self._update = update

    def tell(self, update: Update) -> None:
        """Hand the update over; a watcher that fails is dropped, the turn goes on."""
        try:
            self._update(update)
        except Exception:
            log.exception("a watcher failed and was dropped")
            self.close()

    def close(self) -> None:
        self._feed.leave(self)
