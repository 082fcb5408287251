"""Takes updates in: what each means is stored, or kept as a dead letter, before it counts as done."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, assert_never
from weakref import WeakValueDictionary

import structlog

from channels.base import Answer, Inbox, Session
from channels.errors import Refused
from channels.telegram.adapter import (
    Adapter,
    Edited,
    Greeted,
    Meaning,
    Moved,
    Overheard,
    Said,
    Stranger,
    Unreadable,
)
from channels.telegram.buttons import Pressed
from channels.telegram.chat import Chat
from channels.telegram.dead_letters import DeadLetters, fingerprint
from channels.telegram.media import Media
from channels.telegram.moves import Moves
from channels.telegram.overheard import gathered, standing
from channels.telegram.welcome import Welcome
from session.events import System
from session.ids import SessionId

log = structlog.get_logger(__name__)

AT_ONCE = 32  # chats whose updates are taken in side by side: one wait for the disk is enough for all of them
_REMEMBERED = 4096  # updates that were done with
_STUCK = 60.0  # seconds after which a session that alone cannot be written holds nobody up any more
_WORD = re.compile(r"/(yes|no)\b")
NOT_YOU = "Only people whom my owner has let in can decide this."
QUESTION_OVER = "This question is over."
HASTY = "The question came after you had written that. Please press one of its buttons, or write it again."
_TRY_AGAIN = ("storage_unavailable", "shutting_down")

Say = Callable[[Chat, str, int | None], None]
Press = Callable[[Pressed, str, bool], None]  # what came of it, and whether its buttons are to go


class Parts(NamedTuple):
    """What meanings are carried out with; `context`: how many overheard messages go along with one to us."""

    inbox: Inbox
    media: Media
    moves: Moves
    welcome: Welcome
    dead_letters: DeadLetters
    say: Say
    press: Press
    asked_later: Callable[[SessionId, int], bool]  # than this message of the session's chat
    refresh: Callable[[], Awaitable[None]]  # takes in what other nodes know now; raises `OSError`
    context: int = 0


class Intake:
    """Polling and webhook both bring their updates here. `clock` counts seconds that never jump."""

    def __init__(self, adapter: Adapter, parts: Parts, clock: Callable[[], float] = time.monotonic) -> None:
        self._adapter = adapter
        self._parts = parts
        self._clock = clock
        self._done: OrderedDict[bytes, None] = OrderedDict()  # fingerprints
        self._held: dict[bytes, float] = {}  # updates that could not be stored, and since when
        self._stored_at = float("-inf")  # when a message was last stored
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._lanes: WeakValueDictionary[int | None, asyncio.Lock] = WeakValueDictionary()

    async def take(self, updates: Sequence[Any]) -> list[bool]:
        """Take in updates, each chat's in their order, the chats side by side; True for what is done with."""
        try:
            await self._parts.refresh()
        except OSError as error:
            log.warning("updates wait: it cannot be read now who may talk", why=str(error))
            return [False] * len(updates)
        for update in updates:
            self._adapter.lane(update)  # a group may have moved in the middle of them
        lanes: dict[int | None, list[int]] = {}
        for index, update in enumerate(updates):
            lanes.setdefault(self._adapter.lane(update), []).append(index)
        done = [False] * len(updates)
        async with asyncio.TaskGroup() as group:
            for lane, indexes in lanes.items():
                group.create_task(self._in_order(lane, updates, indexes, done))
        return done

    async def _in_order(
        self, lane: int | None, updates: Sequence[Any], indexes: list[int], done: list[bool]
    ) -> None:
        lock = self._lanes.setdefault(lane, asyncio.Lock())
        async with lock, self._slots:
            for index in indexes:
                done[index] = await self._one(updates[index])
                if not done[index]:
                    return  # what comes after it in the chat must not overtake it

    async def _one(self, update: Any) -> bool:
        mark = fingerprint(update)
        if mark in self._done:
            return True
        meaning: Meaning | None = None
        try:
            meaning = self._adapter.read(update)
            if meaning is not None:
                await self._carry_out(meaning)
        except Refused as refused:
            if refused.code in _TRY_AGAIN and not self._stuck_alone(mark, refused):
                return False
            if refused.code == "id_conflict":
                log.info("a message that was stored already reads otherwise now", why=refused.public)
            elif not await self._buried(update, str(refused), meaning, refused.public):
                return False
        except Exception as error:
            if not await self._buried(update, f"{type(error).__name__}: {error}", meaning):
                return False
        self._over(mark)
        return True

    def _over(self, mark: bytes) -> None:
        self._held.pop(mark, None)
        self._done[mark] = None
        if len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)

    def _stuck_alone(self, mark: bytes, refused: Refused) -> bool:
        """Whether this one is refused for a minute while others are stored: the disk is not what is wrong."""
        if mark not in self._held:
            log.warning("an update cannot be stored now", why=str(refused))
        since = self._held.setdefault(mark, self._clock())
        if len(self._held) > _REMEMBERED:
            self._held.pop(next(iter(self._held)))
        alone = refused.code == "storage_unavailable" and self._stored_at > since
        return alone and self._clock() - since > _STUCK

    async def _buried(
        self, update: Any, why: str, meaning: Meaning | None, public: str = Welcome.LOST
    ) -> bool:
        """Keep it as a dead letter and say so to its sender; False where the disk refuses even that."""
        try:
            await self._parts.dead_letters.keep(update, why)
        except OSError as error:
            log.warning("the dead letters cannot be written", why=str(error))
            return False
        if isinstance(meaning, Said):
            self._parts.say(meaning.chat, public, meaning.chat.message(meaning.message.id))
        return True

    # -- meanings --------------------------------------------------------------------------------

    async def _carry_out(self, meaning: Meaning) -> None:
        match meaning:
            case Said():
                await self._submit(meaning)
            case Edited(peer=peer) | Overheard(peer=peer) | Moved(peer=peer):
                session = await self._parts.inbox.session(peer)
                try:
                    await self._note(session, meaning)
                finally:
                    session.close()
            case Pressed():
                await self._press(meaning)
            case Greeted(chat=chat):
                self._parts.say(chat, self._parts.welcome.greeting(), None)
            case Unreadable(chat=chat, message_id=message_id, kind=kind):
                self._parts.say(chat, self._parts.welcome.unreadable(kind), message_id)
            case Stranger(chat=chat, message_id=message_id, peer=peer_id, name=name):
                with _own_files():
                    sentence = await self._parts.welcome.stranger(peer_id, name)
                if sentence:
                    self._parts.say(chat, sentence, None if chat.private else message_id)
            case _:
                assert_never(meaning)

    async def _press(self, pressed: Pressed) -> None:
        if not pressed.may:
            self._parts.press(pressed, NOT_YOU, False)
            return
        if pressed.decision is None:
            self._parts.press(pressed, QUESTION_OVER, True)
            return
        session = await self._parts.inbox.session(pressed.peer)
        try:
            await session.approve(pressed.decision.call_id, pressed.decision.allow)
        except Refused as refused:
            if refused.code != "not_found":
                raise
            self._parts.press(pressed, QUESTION_OVER, True)
        else:
            self._parts.press(pressed, "Allowed." if pressed.decision.allow else "Not allowed.", False)
        finally:
            session.close()

    async def _hasty(self, said: Said) -> bool:
        """Whether it is a word on questions that its sender cannot have seen; they are told so then."""
        id = said.chat.message(said.message.id)
        if id is None or not _WORD.match(said.message.text):
            return False
        session = await self._parts.inbox.session(said.message.peer)
        try:
            hasty = self._parts.asked_later(session.id, id)
        finally:
            session.close()
        if hasty:
            self._parts.say(said.chat, HASTY, None if said.chat.private else id)
        return hasty

    async def _submit(self, said: Said) -> None:
        if await self._hasty(said):
            return
        parts, message = self._parts, said.message
        with _own_files():
            for file in said.files:
                await parts.media.want(file, said.chat)
        if said.context and parts.context:
            session = await parts.inbox.session(message.peer)
            try:
                message = await gathered(session, message, parts.context)
            finally:
                session.close()
        answer = await parts.inbox.submit(message)
        self._stored_at = self._clock()
        if said.files:
            parts.media.fetch()
        if isinstance(answer, Answer):
            parts.say(said.chat, answer.text, None if said.chat.private else said.chat.message(message.id))

    async def _note(self, session: Session, meaning: Edited | Overheard | Moved) -> None:
        match meaning:
            case Edited(of=of, text=text):
                before = await standing(session, of)
                if before is not None and before != text:
                    await session.record([System(name="edit", of=of, content=text)])
            case Overheard(id=id, sender=sender, text=text):
                if await standing(session, id) is None:
                    await session.record([System(name="context", id=id, sender=sender, content=text)])
            case Moved(old=old, new=new, known=known):
                if known or await session.before(None, 1):
                    with _own_files():
                        await self._parts.moves.keep(old, new)
                    if session.address != str(new):
                        await session.record([System(name="address", chat=str(new))])
                else:
                    self._parts.moves.forget(new)
            case _:
                assert_never(meaning)


@contextmanager
def _own_files() -> Iterator[None]:
    """A disk that refuses what we note beside the transcripts holds an update up, too."""
    try:
        yield
    except OSError as error:
        raise Refused("storage_unavailable", f"a file of the channel cannot be written: {error}") from error
