"""The tools that every gateway has, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.agent.attachment_text import described
from gateway.agent.attachments import Attachment, Attachments
from gateway.agent.search_words import queries
from gateway.agent.tools import Scope, Tool, ToolError, ToolFailed
from gateway.agent.transcript_index import Found, TranscriptIndex
from session.events import User
from session.ids import SessionId
from session.protocols import TranscriptStore

_MOST_FOUND = 20
_SNIPPET = 600  # characters of each
_PATIENCE = 25.0  # seconds for a transcript that was never searched
_BLOCK = 500  # events that are looked at together


def get_current_datetime(timezone: str | None = None) -> str:
    """Get the current date, time and weekday.

    Args:
        timezone: IANA time zone such as Europe/Berlin; leave out for the local time.
    """
    if timezone is None:
        moment = datetime.now(UTC).astimezone()
    else:
        try:
            moment = datetime.now(ZoneInfo(timezone))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ToolError(
                f"There is no time zone {timezone!r}. Use an IANA name such as Europe/Berlin or Asia/Tokyo."
            ) from error
    return moment.strftime("%A, %Y-%m-%d %H:%M:%S %Z (UTC%z)")


class SearchTranscript:
    """The older part of a session, by its words."""

    def __init__(self, index: TranscriptIndex) -> None:
        self._index = index

    async def search_transcript(self, scope: Scope, query: str, limit: int = 8) -> str:
        """Search this conversation's history, also what was said too long ago for you to see.

        Gives dated excerpts, the best match first.

        Args:
            query: A few words that were probably said, in the conversation's language.
            limit: How many excerpts at most.
        """
        wanted = list(queries(query))
        if not wanted:
            raise ToolError("The query has no words. Give a few that were probably said.")
        limit = max(1, min(limit, _MOST_FOUND))
        try:
            found = await self._index.search(scope.session, scope.turn, wanted, limit, _PATIENCE)
        except OSError as error:
            raise ToolFailed("the transcript cannot be read just now") from error
        if not found:
            return "Nothing was found. Try fewer or other words."
        return "\n\n".join(_shown(one, query) for one in found)


class ReadAttachment:
    """The files that came with a session's messages."""

    def __init__(self, store: TranscriptStore, attachments: Attachments) -> None:
        self._store = store
        self._attachments = attachments

    async def read_attachment(self, scope: Scope, name: str) -> str:
        """Read the text of a file that a person sent in this conversation.

        Args:
            name: The file as its message names it, such as media/telegram/42_7.txt.
        """
        wanted = name.strip().rpartition("/")[2]
        for attachment in await self._of_message(scope.session, wanted.partition(".")[0]):
            if attachment.name == wanted:
                try:
                    return await asyncio.to_thread(described, attachment)
                except OSError as error:
                    raise ToolFailed("the file cannot be read just now") from error
        raise ToolError(f"No message of this conversation has a file {wanted!r} (any more).")

    async def _of_message(self, session: SessionId, id: str) -> list[Attachment]:
        """A message's files, where it is the session's own: topics of one chat share the chat's number."""
        found = await self._attachments.of(session, id)
        return found if found and await self._has(session, id) else []

    async def _has(self, session: SessionId, id: str) -> bool:
        cursor = await self._store.end(session)
        while cursor and (records := await self._store.before(session, cursor, _BLOCK)):
            if any(isinstance(record.event, User) and record.event.id == id for record in records):
                return True
            earlier = await self._store.before(session, records[0].cursor, 2)
            cursor = earlier[0].cursor if len(earlier) == 2 else None
        return False


def _shown(found: Found, query: str) -> str:
    return f"[{found.ts[:16].replace('T', ' ')} UTC, {found.who}] {_excerpt(found.text, query)}"


def _excerpt(text: str, query: str) -> str:
    """The part of a long text that has most to do with the query."""
    text = " ".join(text.split())
    if len(text) <= _SNIPPET:
        return text
    low = text.casefold()
    places = [low.find(word) for word in query.casefold().split()]
    begin = max(0, min((place for place in places if place >= 0), default=0) - _SNIPPET // 3)
    part = text[begin : begin + _SNIPPET]
    return f"{'…' if begin else ''}{part}{'…' if begin + _SNIPPET < len(text) else ''}"


class _Builtin(NamedTuple):
    run: Callable[..., Awaitable[str] | str]
    scoped: bool = False


class BuiltinTools:
    """A `ToolSource`. The schemas are made at the first need: deriving them takes longer than a start may."""

    NAMES = ("get_current_datetime", "search_transcript", "read_attachment")

    def __init__(self, store: TranscriptStore) -> None:
        self._index = TranscriptIndex(store)
        self._functions = dict(
            zip(
                self.NAMES,
                (
                    _Builtin(get_current_datetime),
                    _Builtin(SearchTranscript(self._index).search_transcript, scoped=True),
                    _Builtin(ReadAttachment(store, Attachments(store.data_dir)).read_attachment, scoped=True),
                ),
                strict=True,
            )
        )
        self._made: list[Tool] = []
        self._making: asyncio.Future[Sequence[Tool]] | None = None  # set by `start`

    def start(self) -> None:
        """Begin to make the schemas, so that the first turn need not."""
        self._making = asyncio.get_running_loop().run_in_executor(None, self.tools)

    def tools(self) -> Sequence[Tool]:
        """All of them."""
        from gateway.agent.signature import tool

        if not self._made:
            made = [
                tool(run, scoped=scoped)._replace(idempotent=True) for run, scoped in self._functions.values()
            ]
            self._made = made
        return self._made

    def repeatable(self, name: str) -> bool:
        """They only look."""
        return name in self.NAMES

    async def ready(self, session: SessionId) -> None:
        """Make the schemas, beside the event loop; bring the session's index up to date, where it has one."""
        self._index.refresh(session)
        if not self._made:
            await asyncio.to_thread(self.tools)

    async def stop(self) -> None:
        """Stop what is done in the background."""
        await self._index.stop()
